// The visit persists: recipes, small pictures and settings in the browser's own storage.
cats.memory = (() => {
  const CATS = 'cat-diffusion.cats', SETTINGS = 'cat-diffusion.settings';
  const MOST = 40; // cats, beside those with a star
  const SIDE = 112; // pixels of a small picture
  const hand = {}; // where storage is not allowed: as long as the page is open

  function read(name) {
    let text = hand[name];
    try { text = localStorage.getItem(name) ?? text; } catch { /* not allowed */ }
    try { return JSON.parse(text ?? 'null'); } catch { return null; }
  }

  function write(name, value) {
    hand[name] = JSON.stringify(value);
    try {
      localStorage.setItem(name, hand[name]);
    } catch (error) { // full, or not allowed: then there is room enough in the hand
      return !/quota/i.test(error.name);
    }
    return true;
  }

  function list() {
    const known = read(CATS);
    return Array.isArray(known) ? known.filter((cat) => cat?.recipe && cat.thumb) : [];
  }

  function keep(known) {
    let left = MOST;
    const kept = known.filter((cat) => cat.star || left-- > 0);
    while (!write(CATS, kept) && kept.length) { // it is full: the oldest without a star goes
      const oldest = kept.findLastIndex((cat) => !cat.star);
      kept.splice(oldest < 0 ? kept.length - 1 : oldest, 1);
    }
    document.dispatchEvent(new Event('cats-kept'));
  }

  const find = (known, recipe) =>
    known.findIndex((cat) => cats.key(cat.recipe) === cats.key(recipe));

  async function thumb(source) {
    const image = new Image();
    image.src = source;
    await image.decode();
    const canvas = Object.assign(document.createElement('canvas'), {width: SIDE, height: SIDE});
    const brush = canvas.getContext('2d');
    brush.imageSmoothingQuality = 'high';
    brush.drawImage(image, 0, 0, SIDE, SIDE);
    return canvas.toDataURL('image/jpeg', 0.82);
  }

  async function add(recipes, images) {
    const sources = images.map((image) => image.src);
    const texts = images.map((image) => image.alt.replace('Generated cat: ', ''));
    const thumbs = await Promise.all(sources.map(thumb));
    const known = list();
    const fresh = recipes
      .map((recipe, i) => ({recipe, thumb: thumbs[i], text: texts[i]}))
      .filter(({recipe}) => find(known, recipe) < 0);
    if (fresh.length) keep([...fresh, ...known]);
  }

  cats.onDrawn((drawn) => {
    if (!drawn.mine || drawn.busy) return;
    const images = [...document.querySelectorAll('#stage img.cat')];
    if (images.length === drawn.recipes.length) add(drawn.recipes, images).catch(() => {});
  });
  window.addEventListener('storage', (event) => { // of another tab
    if (event.key === CATS || event.key === null) document.dispatchEvent(new Event('cats-kept'));
  });

  cats.settings = () => JSON.stringify(read(SETTINGS) ?? {});
  cats.keepSetting = (name, value) => write(SETTINGS, {...read(SETTINGS), [name]: value});
  cats.keepModel = (model) => { // the rest of the settings is what suits it
    const {coat, count, seed} = read(SETTINGS) ?? {};
    write(SETTINGS, {coat, count, seed, model});
  };
  cats.keepSeed = (isFresh, seed) => cats.keepSetting('seed', isFresh ? undefined : seed);
  cats.forgetSettings = () => write(SETTINGS, {});

  return {
    list, keep,
    has: (recipe) => find(list(), recipe) >= 0,
    star: (recipe) => keep(list().map((cat) => (
      cats.key(cat.recipe) === cats.key(recipe) ? {...cat, star: !cat.star} : cat))),
    remove: (recipe) => keep(list().filter((cat) => cats.key(cat.recipe) !== cats.key(recipe))),
  };
})();
