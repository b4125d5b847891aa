// What the scripts of the Generate tab share: finding things, and hearing of a change on the stage.
// Listeners are on the document, since Gradio draws and drops elements as it likes.
window.cats = (() => {
  const find = (selector) => document.querySelector(selector);
  const stage = () => find('#stage .stage');
  // Which cat it is, whatever version of the page or of the model drew it last.
  const key = (recipe) => JSON.stringify({...recipe, version: undefined, model_hash: undefined});
  const listeners = [];
  const doers = {};
  let seen = '';

  function recipes() {
    try { return JSON.parse(stage()?.dataset.recipes || '[]'); } catch { return []; }
  }

  function changed() {
    const now = stage();
    if (!now) return;
    const {recipes: known = '', mine} = now.dataset;
    const film = document.querySelectorAll('#stage .film i').length;
    const mark = [now.getAttribute('aria-busy'), known, mine !== undefined, film].join();
    if (mark === seen) return;
    seen = mark;
    const drawn = {
      busy: now.getAttribute('aria-busy') === 'true', mine: mine !== undefined,
      recipes: recipes(), link: now.dataset.link || '',
    };
    drawn.isNew = drawn.mine && drawn.recipes.some((recipe) => !cats.memory.has(recipe));
    for (const listener of listeners) listener(drawn);
  }

  new MutationObserver(changed).observe(document.documentElement, {
    subtree: true, childList: true, attributes: true,
    attributeFilter: ['aria-busy', 'data-recipes'],
  });

  document.addEventListener('click', (event) => {
    const button = event.target.closest?.('[data-do]');
    if (button) doers[button.dataset.do]?.(button);
  });

  // A file that is dropped beside a field would take the place of the page. The window hears of it
  // after all fields have.
  for (const kind of ['dragover', 'drop']) {
    window.addEventListener(kind, (event) => {
      if (event.defaultPrevented || !event.dataTransfer?.types.includes('Files')) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = 'none';
    });
  }

  // Something that Gradio draws only when it is wanted, once it is there.
  async function when(selector) {
    for (let tries = 0; tries < 1200 && !find(selector); tries += 1) { // a minute
      await new Promise((resolve) => { setTimeout(resolve, 50); });
    }
    return find(selector);
  }

  return {
    find, stage, key, recipes, when,
    onDrawn: (listener) => listeners.push(listener), // {busy, mine, recipes, link, isNew}
    does: (name, action) => { doers[name] = action; }, // of elements with data-do
    calm: () => matchMedia('(prefers-reduced-motion: reduce)').matches,
    pixels: (on) => find('.gradio-container').classList.toggle('pixels', on),
  };
})();
