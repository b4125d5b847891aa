// The map: four cats at the corners, and under a point between them the cat that they make together.
cats.map = (() => {
  const {find} = cats;
  const KEPT = 'cat-diffusion.map';
  const STEP = 0.02, LEAP = 0.1; // of the map, for an arrow key, and with Shift
  const REST = 450; // ms after the last arrow key until the cat is refined
  const PLACES = [[0, 0], [1, 0], [0, 1], [1, 1]];
  const NOTHING = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E";
  const faces = ['', '', '', '']; // object URLs of the corners' cats
  const seed = () => Math.floor(Math.random() * 2 ** 31);
  let before = null; // the corners until the last choice, should it not be drawn
  let corners = null, point = {x: 0.5, y: 0.5}, here = null, opened = 0, dragging = null, resting = 0;

  const model = () => find('#explore-model')?.dataset.model ?? '';
  const isOpen = () => Boolean(find('#explore-map')?.offsetParent);

  function say(sentence) {
    const line = find('#explore-said');
    if (line) line.textContent = sentence;
  }

  // -- the cat under the point ----------------------------------------------------------------

  async function show({asked, recipe, source}) {
    here = recipe;
    say(asked.why ?? '');
    await cats.view.show(source, `Cat under the point${asked.fine ? '' : ', roughly drawn'}`);
    if (!frames.waits()) cats.view.state(asked.fine ? 'fine' : 'live');
  }
  const frames = cats.frames(show, (error) => say(error.message));
  const place = (x, y, fine = false) => ({corners, x, y, fine});

  function look(fine = false, why = '') { // why: what is still to be read below the cat
    clearTimeout(resting);
    if (!isOpen()) return;
    cats.view.state('asked');
    frames.want({...place(point.x, point.y, fine), why});
  }
  const settle = () => { look(); look(true); }; // roughly at once, then as well as it can be

  function move(x, y) {
    const within = (value) => Math.round(Math.min(1, Math.max(0, value)) * 1000) / 1000;
    point = {x: within(x), y: within(y)};
    paint();
    cats.dream.stop();
    look();
  }

  function rest() { keep(); look(true); }

  // -- the corners ----------------------------------------------------------------------------

  // Faces are drawn one after the other, and only once the cat under the point is there.
  const drawn = cats.frames(({asked, recipe, source}) => {
    const {index} = asked;
    if (asked.cat !== corners[index]) { // another cat was chosen meanwhile
      URL.revokeObjectURL(source);
      face();
      return;
    }
    if (faces[index]) URL.revokeObjectURL(faces[index]);
    faces[index] = source;
    corners[index] = recipe;
    keep();
    paint();
    face();
  }, (error, {index}) => {
    say(error.message);
    faces[index] = before ? '' : 'none'; // the cat before comes back, with its face
    if (before) [corners, before] = [before, null];
    paint();
    face();
    look(true, error.message);
  });

  function face() {
    const index = faces.indexOf('');
    const [x, y] = PLACES[index] ?? [];
    if (index >= 0) drawn.want({...place(x, y), index, cat: corners[index]});
  }

  function newCat(coat = '') {
    const {taught} = find('#explore-model').dataset;
    const chosen = coat || taught;
    return {seed: seed(), coat: chosen, any_coat: !chosen, model: model()};
  }

  function setCorner(index, cat) {
    before = [...corners];
    corners[index] = cat;
    if (faces[index]) URL.revokeObjectURL(faces[index]);
    faces[index] = '';
    paint();
    cats.dream.stop();
    face();
    settle();
  }

  function keep() {
    if (corners.some(isLink)) return;
    try { localStorage.setItem(KEPT, JSON.stringify({corners, point})); } catch { /* not allowed */ }
  }

  function remembered() {
    try {
      const known = JSON.parse(localStorage.getItem(KEPT));
      const {x, y} = known.point;
      const whole = known.corners.every((cat) => cat && typeof cat === 'object');
      if (whole && known.corners.length === 4 && x >= 0 && x <= 1 && y >= 0 && y <= 1) return known;
    } catch { /* nothing, or nothing that can be used */ }
    return null;
  }

  const isLink = (cat) => typeof cat === 'string'; // whose cat is still being drawn
  const ofOthers = () => corners.some((cat) => !isLink(cat) && cat.model !== model());

  function open() { // each time the tab is shown, and when another model is chosen
    if (!isOpen() || !model()) return;
    const isNew = !corners;
    if (isNew) ({corners, point} = remembered() ?? {corners: PLACES.map(() => newCat()), point});
    const {coats} = find('#explore-model').dataset;
    const known = ['', ...JSON.parse(coats)];
    const isOther = ofOthers();
    if (isOther) {
      cats.dream.stop();
      const fits = (cat) => known.includes(cat.coat ?? '') && !cat.turned && !cat.towards;
      const moved = (cat) => (fits(cat)
        ? {...cat, model: model(), model_hash: ''} : {...newCat(), seed: cat.seed});
      corners = corners.map((cat) => (isLink(cat) ? cat : moved(cat)));
      faces.fill('');
    }
    if (!corners.some(isLink)) before = null;
    faces.forEach((known, i) => { if (known === 'none') faces[i] = ''; });
    paint();
    const isCutOff = ['asked', 'live'].includes(find('#explore-view').dataset.state);
    if (isNew || isOther || isCutOff || cats.view.isEmpty()) settle();
    face();
  }

  function paint() {
    const dot = find('#explore-map .point');
    if (!dot) return;
    dot.style.left = `${point.x * 100}%`;
    dot.style.top = `${point.y * 100}%`;
    dot.setAttribute('aria-valuenow', Math.round(point.x * 100));
    dot.setAttribute('aria-valuetext',
      `${Math.round(point.x * 100)}% to the right, ${Math.round(point.y * 100)}% down`);
    document.querySelectorAll('.corner-cat .face img').forEach((image, i) => {
      const cat = corners?.[i];
      const source = faces[i] && faces[i] !== 'none' ? faces[i] : NOTHING;
      image.src = source;
      document.querySelectorAll('#explore-map .ghost')[i].src = source;
      image.alt = cat ? `seed ${cat.seed}${cat.coat ? `, ${cat.coat}` : ''}` : '';
    });
  }

  // -- choosing a corner's cat ----------------------------------------------------------------

  function choose(index) {
    opened = index;
    const names = ['Top left', 'Top right', 'Bottom left', 'Bottom right'];
    find('#corner-name').textContent = `${names[index]} cat`;
    const coats = JSON.parse(find('#explore-model').dataset.coats);
    find('#corner-coat').replaceChildren(new Option('any', ''), ...coats.map((c) => new Option(c, c)));
    find('#corner-coat').value = corners[index].coat ?? '';
    const fits = cats.memory.list().filter(({recipe}) => !recipe.picture && recipe.model === model());
    find('#corner .thumbs').replaceChildren(...fits.map(({recipe, thumb, text}) => {
      const button = Object.assign(document.createElement('button'), {className: 'thumb'});
      button.append(Object.assign(new Image(), {src: thumb, alt: `Your cat: ${text ?? recipe.seed}`}));
      button.onclick = () => take(recipe);
      return button;
    }));
    find('#corner [data-explore=stage]').disabled = !(cats.opened() ?? cats.recipes()[0]);
    find('#corner [data-explore=this]').disabled = !inView();
    find('#corner').showModal();
  }

  function take(cat) {
    find('#corner').close();
    if (cat) setCorner(opened, cat);
  }

  const inView = () => cats.dream.recipe() ?? here;
  const indexOf = (button) => Number(button.closest('[data-corner]')?.dataset.corner ?? opened);
  const does = {
    choose: (button) => choose(indexOf(button)),
    dice: (button) => {
      const index = indexOf(button), dialog = find('#corner');
      const coat = dialog.open ? find('#corner-coat').value : '';
      dialog.close();
      setCorner(index, newCat(coat));
    },
    this: () => take(inView()),
    stage: () => take(cats.opened() ?? cats.recipes()[0]),
    all: () => {
      corners = PLACES.map(() => newCat());
      faces.fill('');
      before = null;
      cats.dream.stop();
      paint();
      settle();
      face();
    },
    send: () => {
      const recipe = inView();
      if (!recipe) return;
      find('#tabs > .tab-wrapper [role=tab][data-tab-id=generate]').click();
      cats.when('#mine .thumbs').then((strip) => strip.dispatchEvent(
        new CustomEvent('cat-again', {bubbles: true, detail: {index: 0, value: [recipe]}})));
    },
  };

  document.addEventListener('click', (event) => {
    const button = event.target.closest?.('[data-explore]');
    if (button) does[button.dataset.explore]?.(button);
  });
  document.addEventListener('change', (event) => {
    if (event.target.id !== 'corner-coat') return;
    const {seed} = corners[opened]; // the dialog stays: arrow keys go from coat to coat
    setCorner(opened, {...newCat(event.target.value), seed});
  });
  document.addEventListener('submit', (event) => {
    if (event.target.id !== 'corner-link') return;
    event.preventDefault();
    take(event.target.elements[0].value.trim());
    event.target.reset();
  });

  function around() { // the cat on the stage, as a corner and under the point
    const cat = cats.opened() ?? cats.recipes()[0];
    find('#tabs > .tab-wrapper [role=tab][data-tab-id=explore]').click();
    const until = Date.now() + 10_000;
    const put = () => { // once Gradio shows the tab
      if (!isOpen() || !model()) {
        if (Date.now() < until) setTimeout(put, 50);
        return;
      }
      open();
      if (!cat) return;
      if (cat.picture) {
        look(true, 'A cat that was made from a picture cannot be a corner.');
        return;
      }
      point = {x: 0, y: 0};
      setCorner(0, cat);
    };
    put();
  }

  // -- moving the point -----------------------------------------------------------------------

  function drag(event) {
    const box = dragging.getBoundingClientRect();
    move((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  }
  document.addEventListener('pointerdown', (event) => {
    const pad = event.target.closest?.('#explore-map .pad');
    if (!pad || !event.isPrimary || event.button > 0 || !corners) return;
    dragging = pad;
    pad.setPointerCapture(event.pointerId);
    event.preventDefault();
    find('#explore-map .point').focus({preventScroll: true});
    drag(event);
  });
  document.addEventListener('pointermove', (event) => { if (dragging && event.isPrimary) drag(event); });
  for (const end of ['pointerup', 'pointercancel']) {
    document.addEventListener(end, () => { if (dragging) { dragging = null; rest(); } });
  }

  document.addEventListener('keydown', (event) => {
    if (!event.target.matches?.('#explore-map .point') || !corners) return;
    const far = event.shiftKey ? LEAP : STEP;
    const [right, down] = {
      ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far],
    }[event.key] ?? [];
    if (right === undefined) return;
    event.preventDefault();
    move(point.x + right, point.y + down);
    resting = setTimeout(rest, REST);
  });

  // -- coming and going -----------------------------------------------------------------------

  function leave() { frames.stop(); drawn.stop(); cats.dream.rest(); }
  function hide() { frames.stop(); drawn.stop(); cats.dream.sleep(); }
  function shown() { if (isOpen()) { if (!document.hidden) open(); } else leave(); }
  document.addEventListener('click', (event) => {
    if (event.target.closest?.('#tabs > .tab-wrapper [role=tab]')) setTimeout(shown, 50);
  });
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) { hide(); return; }
    shown();
    cats.dream.wake();
  });
  new MutationObserver((changes) => {
    const isAbout = ({target}) => (target.nodeType === 1 ? target : target.parentElement)
      ?.closest('#explore-right');
    if (changes.some(isAbout) && model() && (!corners || ofOthers())) open();
  }).observe(document.documentElement, {subtree: true, childList: true});

  return {model, isOpen, say, around, stop: frames.stop};
})();
