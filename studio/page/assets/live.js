// Cats as frames: asked for one at a time, and of those that wait only the latest is kept.
cats.frames = (show, fail) => {
  const SILENT = new Error('The server does not answer. Try again.');
  let onItsWay = null, waiting = null;

  async function next() {
    if (onItsWay || !waiting) return;
    const asked = waiting, stop = new AbortController();
    waiting = null;
    onItsWay = {asked, stop};
    try {
      const answer = await fetch('live', {
        method: 'POST', headers: {'content-type': 'application/json'}, signal: stop.signal,
        body: JSON.stringify(asked),
      });
      if (answer.status !== 200) throw new Error((await answer.json()).error);
      const recipe = JSON.parse(answer.headers.get('x-recipe'));
      const frame = {asked, recipe, source: URL.createObjectURL(await answer.blob())};
      if (stop.signal.aborted) URL.revokeObjectURL(frame.source);
      else await show(frame);
    } catch (error) {
      const isSilent = error instanceof TypeError || error instanceof SyntaxError;
      if (!stop.signal.aborted) fail(isSilent ? SILENT : error, asked);
    }
    if (onItsWay?.stop !== stop) return; // another began meanwhile
    onItsWay = null;
    next();
  }

  function stop() { // also what is being drawn: the server hears that nobody waits for it
    waiting = null;
    onItsWay?.stop.abort();
    onItsWay = null;
  }

  return {
    want(asked) { // a refined cat gives way to whatever comes
      waiting = asked;
      if (onItsWay?.asked.fine) { onItsWay.stop.abort(); onItsWay = null; }
      next();
    },
    stop,
    waits: () => Boolean(waiting),
  };
};

// Where the frames of the map and of the dream are seen.
cats.view = (() => {
  const {find} = cats;
  let sources = []; // object URLs of the last two frames
  const top = () => find('#explore-view .cat');

  async function show(source, alt, fade = 0) { // the frame, and ms to fade into it
    const image = top(), under = find('#explore-view .under');
    if (!image) { URL.revokeObjectURL(source); return; }
    if (fade && image.src) { under.src = image.src; under.hidden = false; }
    image.src = source;
    image.alt = alt;
    await image.decode().catch(() => {});
    image.hidden = false;
    if (fade && !under.hidden) image.animate({opacity: [0, 1]}, fade);
    sources.push(source);
    while (sources.length > 2) URL.revokeObjectURL(sources.shift());
  }

  const state = (now) => { find('#explore-view').dataset.state = now; }; // asked, live, dream, fine

  return {show, state, isEmpty: () => !top()?.src};
})();

(() => { // the whole screen, where the browser gives it; else the whole window
  const view = () => cats.find('#explore-view');
  const whole = () => view().classList.toggle('whole');
  document.addEventListener('click', (event) => {
    if (!event.target.closest?.('[data-explore=full]')) return;
    if (document.fullscreenElement) document.exitFullscreen();
    else if (view().requestFullscreen) view().requestFullscreen().catch(whole);
    else whole();
  });
})();
