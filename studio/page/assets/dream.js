// The dream: from cat to cat without an end. Which cat is seen is a matter of the clock, so a slow
// connection leaves frames out and falls behind by none.
cats.dream = (() => {
  const {find} = cats;
  const LAST = 10, RATE = 12; // seconds that can be saved, and frames a second of that film
  const SLOW = 4000; // ms for each cat where the visitor wants little motion
  const FADE = 400; // ms at most from frame to frame
  const TRIES = 4; // after a frame that failed, each after twice as long, the first after a second
  let dream = null; // {seed, model, moment, since}
  let seen = [], shown = null, timer = 0, failed = 0, asleep = false, lock = null;

  const speed = () => (cats.calm() ? 1 / SLOW : Number(find('#dream-speed').value) / 1000);
  function moment() { // cats after the first
    const now = dream.moment + (performance.now() - dream.since) * dream.speed;
    return cats.calm() ? Math.floor(now) : Math.round(now * 1e4) / 1e4;
  }

  // Timers may fire a millisecond early; the cat before would then be asked for again.
  const untilNext = () => SLOW + 20 - ((performance.now() - dream.since) % SLOW);

  function ask(fine = false) {
    clearTimeout(timer);
    const asked = {seed: dream.seed, moment: moment(), model: dream.model, fine};
    frames.want(asked);
  }

  const frames = cats.frames(async ({asked, recipe, source}) => {
    if (failed) cats.map.say('');
    failed = 0;
    const at = performance.now(), gap = shown && dream ? at - shown.at : 0;
    shown = {at, recipe};
    if (dream) seen = [...seen.filter((frame) => at - frame.at < LAST * 1000), {at, moment: asked.moment}];
    await cats.view.show(source, `A cat of the dream: seed ${recipe.seed}`,
      cats.calm() ? 0 : Math.min(FADE, gap));
    cats.view.state(asked.fine ? 'fine' : 'dream');
    if (!dream || asleep) return;
    if (seen.length === 2) label();
    if (!cats.map.isOpen()) { stop(); return; }
    if (cats.calm()) timer = setTimeout(ask, untilNext());
    else ask();
  }, (error) => {
    cats.map.say(error.message);
    if (!dream || asleep) return;
    if (failed === TRIES) stop();
    else timer = setTimeout(ask, 1000 * 2 ** failed++);
  });

  function label() {
    const isOn = Boolean(dream);
    find('#explore-desk').classList.toggle('dreaming', isOn);
    find('#explore-desk').classList.toggle('dreamt', seen.length > 1);
    find('#dream').textContent = isOn ? 'Stop' : 'Dream';
  }

  function start() {
    cats.map.stop();
    seen = [];
    dream = {
      seed: Math.floor(Math.random() * 2 ** 31), model: cats.map.model(), moment: 0,
      since: performance.now(), speed: speed(),
    };
    cats.map.say('');
    [failed, asleep] = [0, false];
    label();
    stayAwake();
    ask();
  }

  async function stayAwake() { // a screen that goes dark ends what is watched
    try {
      const held = await navigator.wakeLock?.request('screen');
      if (dream && !asleep && !lock) lock = held;
      else held?.release();
    } catch { /* not allowed, or the battery is low */ }
  }
  function letSleep() { lock?.release(); lock = null; }

  function sleep() { // while nobody sees the page
    clearTimeout(timer);
    frames.stop();
    letSleep();
    if (!dream || asleep) return;
    dream.moment += (performance.now() - dream.since) * dream.speed;
    asleep = true;
  }

  function wake() {
    if (!dream || !asleep) return;
    [asleep, failed, dream.since] = [false, 0, performance.now()];
    shown = null; // no long fade
    stayAwake();
    ask();
  }

  function stop() {
    clearTimeout(timer);
    frames.stop();
    letSleep();
    if (!dream) return;
    last = dream;
    dream = null;
    label();
  }
  let last = null;

  function end() { // by its button: the cat that is seen then is drawn well
    const asked = dream && seen.length
      ? {seed: dream.seed, moment: seen.at(-1).moment, model: dream.model, fine: true} : null;
    stop();
    if (asked) frames.want(asked);
  }

  cats.dreamt = () => { // the moments of the last ten seconds, for the film; the dream makes way for it
    if (dream) end();
    const until = seen.at(-1)?.at ?? 0, from = Math.max(until - LAST * 1000, seen[0]?.at ?? 0);
    const count = Math.floor(((until - from) / 1000) * RATE);
    const moments = Array.from({length: count}, (_, i) => {
      const at = from + (i * 1000) / RATE;
      const next = seen.findIndex((frame) => frame.at > at);
      const [a, b] = [seen[Math.max(0, next - 1)], seen[next]];
      const part = cats.calm() ? 0 : (at - a.at) / (b.at - a.at);
      return Math.round((a.moment + part * (b.moment - a.moment)) * 1e4) / 1e4;
    });
    const {seed, model} = dream ?? last ?? {};
    return JSON.stringify({seed, model, moments});
  };

  document.addEventListener('click', (event) => {
    if (event.target.closest?.('[data-explore=dream]')) { if (dream) end(); else start(); }
  });
  document.addEventListener('input', (event) => {
    if (event.target.id !== 'dream-speed' || !dream) return;
    Object.assign(dream, {moment: dream.moment + (performance.now() - dream.since) * dream.speed,
      since: performance.now(), speed: speed()});
  });

  return {
    stop() { stop(); shown = null; }, // the map is seen again
    rest: stop, // its cat stays in view
    sleep, wake,
    recipe: () => shown?.recipe ?? null,
  };
})();
