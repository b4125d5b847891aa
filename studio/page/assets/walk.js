// How a cat formed: the slider that walks through its steps, its play button, and the replay after a
// drawing that was too quick to be seen.
(() => {
  const {find} = cats;
  const SECONDS = 1; // that a replay takes
  const SLOW = 1.5; // seconds: who waited longer has seen it form
  const frames = () => [...document.querySelectorAll('#stage .film i')].map((i) => i.dataset.frame);
  const cat = () => find('#stage img.cat');
  let finished = null, playing = 0, busySince = 0;

  function show(step) {
    const steps = frames(), image = cat();
    if (!image || !finished || !steps.length) return;
    const isLast = step >= steps.length;
    image.src = isLast ? finished.src : steps[step - 1];
    image.alt = isLast ? finished.alt
      : finished.alt.replace('Generated', `Step ${step} of ${steps.length} of a`);
    find('#walk .caption').textContent = isLast ? '' : `Step ${step} of ${steps.length}`;
  }

  function stop() {
    clearInterval(playing);
    playing = 0;
    find('[data-do=play]')?.classList.remove('playing');
  }

  function play() {
    if (playing) { stop(); return; }
    const slider = find('#walk input');
    let step = 0;
    find('[data-do=play]').classList.add('playing');
    playing = setInterval(() => {
      step += 1;
      slider.value = step;
      show(step);
      if (step >= Number(slider.max)) stop();
    }, Math.max(80, 1600 / Number(slider.max)));
  }

  function replay() {
    const steps = [...frames(), finished.src];
    const each = (SECONDS * 1000) / steps.length;
    const place = Object.assign(document.createElement('div'), {className: 'replay'});
    place.setAttribute('aria-hidden', 'true');
    steps.forEach((source, i) => {
      const image = Object.assign(document.createElement('img'), {src: source, alt: ''});
      if (i) image.style.animation = `appear ${each}ms linear ${(i - 1) * each}ms both`;
      place.append(image);
    });
    place.lastChild.addEventListener('animationend', skip);
    find('#over-stage').append(place);
  }

  const skip = () => find('#over-stage .replay')?.remove();
  for (const event of ['pointerdown', 'keydown']) document.addEventListener(event, skip, true);

  cats.walkFor = (hasSteps) => { // of a grid, the steps of its first cat are known
    stop();
    show(Infinity); // a walk that was left half way shows the whole cat again
    const steps = hasSteps && finished ? frames().length : 0, slider = find('#walk input');
    slider.max = Math.max(steps, 2);
    slider.value = slider.max;
    slider.disabled = find('[data-do=play]').disabled = steps < 2;
    slider.title = steps < 2 ? 'A cat that you draw or open alone has steps to walk through' : '';
    find('#walk .caption').textContent = '';
  };

  cats.does('play', play);
  document.addEventListener('input', (event) => {
    if (!event.target.matches('#walk input')) return;
    stop();
    show(Number(event.target.value));
  });

  cats.onDrawn((drawn) => {
    stop();
    skip();
    if (drawn.busy) { busySince ||= performance.now(); finished = null; cats.walkFor(false); return; }
    const waited = busySince ? (performance.now() - busySince) / 1000 : 0;
    busySince = 0;
    finished = cat() && drawn.recipes.length ? {src: cat().src, alt: cat().alt} : null;
    cats.walkFor(drawn.recipes.length === 1);
    const isOne = drawn.recipes.length === 1 && frames().length > 1;
    if (isOne && drawn.isNew && waited < SLOW && !cats.calm() && !document.hidden) replay();
  });
})();
