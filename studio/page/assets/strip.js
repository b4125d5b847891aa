// The strip: this visitor's cats as the browser remembers them, and which of them is on the stage.
(() => {
  const {find, key, memory} = cats;
  const past = []; // what was on the stage before: {recipes, mine}
  let before = null, current = null, gone = null;
  let wanted = null; // a cat that was clicked, until it is there

  function again(recipes, isExample) {
    find('#mine .thumbs')?.dispatchEvent(new CustomEvent('cat-again', {
      bubbles: true, detail: {index: isExample ? 1 : 0, value: recipes},
    }));
  }

  const againBefore = (shown) => shown && again(shown.recipes, !shown.mine);

  function thumb(cat) {
    const button = document.createElement('button');
    button.className = 'thumb';
    button.dataset.recipe = JSON.stringify(cat.recipe);
    button.classList.toggle('starred', Boolean(cat.star));
    const image = document.createElement('img');
    image.src = cat.thumb;
    image.alt = `Your cat: ${cat.text ?? `seed ${cat.recipe.seed}`}${cat.star ? ', starred' : ''}`;
    button.append(image);
    return button;
  }

  function mark() {
    for (const button of document.querySelectorAll('#strip .thumb')) {
      const marked = wanted ?? current;
      const isOn = marked && key(JSON.parse(button.dataset.recipe)) === key(marked);
      if (isOn) {
        button.setAttribute('aria-current', 'true');
        const row = button.closest('#strip');
        const [box, room] = [button.getBoundingClientRect(), row.getBoundingClientRect()];
        if (box.left < room.left || box.right > room.right) {
          row.scrollBy({left: box.left - room.left - 8, behavior: cats.calm() ? 'auto' : 'smooth'});
        }
      } else button.removeAttribute('aria-current');
    }
    const mine = memory.list().find((cat) => current && key(cat.recipe) === key(current));
    find('#over-stage .corner')?.classList.toggle('there', Boolean(mine));
    find('[data-do=star]')?.setAttribute('aria-pressed', String(Boolean(mine?.star)));
  }

  function render() {
    const place = find('#mine .thumbs');
    if (!place) return;
    const known = memory.list(), focused = place.querySelector(':focus')?.dataset.recipe;
    place.replaceChildren(...known.map(thumb));
    if (focused) [...place.children].find((one) => one.dataset.recipe === focused)?.focus();
    find('#count-of-mine').textContent = known.length === 0 ? 'Examples. Click one to see it.'
      : known.length === 1 ? 'Your last cat' : `Your last ${known.length} cats`;
    find('[data-do=clear]').hidden = known.length === 0;
    find('[data-do=undo]').hidden = gone === null;
    mark();
  }

  cats.setCurrent = (recipe) => { [current, wanted] = [recipe, null]; mark(); };
  cats.inStrip = () => JSON.stringify(memory.list().map((cat) => cat.recipe));
  cats.onStage = () => JSON.stringify(cats.recipes());
  cats.along = (way) => { // to the next thumbnail, in reading order
    const thumbs = [...document.querySelectorAll('#strip .thumb')];
    const at = thumbs.findIndex((button) => button.hasAttribute('aria-current'));
    (at < 0 ? thumbs[0] : thumbs[at + way])?.click();
  };
  cats.backInTime = () => {
    const last = past.pop();
    if (last) { before = null; againBefore(last); }
  };

  document.addEventListener('click', (event) => {
    const button = event.target.closest?.('#strip .thumb');
    if (!button) return;
    const recipe = JSON.parse(button.dataset.recipe);
    wanted = recipe; // star and bin are for the cat that is seen
    mark();
    again([recipe], Boolean(button.closest('#examples')));
  });
  cats.does('star', () => current && memory.star(current));
  cats.does('delete', () => {
    if (!current) return;
    gone = memory.list();
    memory.remove(current);
  });
  cats.does('clear', () => { gone = memory.list(); memory.keep(gone.filter((cat) => cat.star)); });
  cats.does('undo', () => { // what has come or got a star since then stays
    const now = memory.list(), same = (one) => (other) => key(one.recipe) === key(other.recipe);
    const back = (gone ?? []).map((cat) => now.find(same(cat)) ?? cat);
    gone = null;
    memory.keep([...now.filter((cat) => !back.some(same(cat))), ...back]);
  });

  cats.onDrawn((drawn) => {
    if (drawn.busy || !drawn.recipes.length) return;
    if (before && key(before.recipes) !== key(drawn.recipes)) past.push(before);
    if (past.length > 50) past.shift();
    before = {recipes: drawn.recipes, mine: drawn.mine};
    gone = drawn.isNew ? null : gone;
    cats.setCurrent(drawn.recipes.length === 1 ? drawn.recipes[0] : null);
  });
  document.addEventListener('cats-kept', render);
  cats.when('#mine .thumbs').then(render);
  cats.when('#examples .thumb').then(mark);
})();
