// A grid is a place: a click opens one cat over it, arrows go on, Esc goes back to all.
(() => {
  const {find} = cats;
  const cells = () => [...document.querySelectorAll('#stage .stage > button')];
  let open = -1;
  let again = Number(new URLSearchParams(location.search).get('open')) - 1; // before a reload

  function show(index) {
    const all = cells();
    open = all.length > 1 && all[index] ? index : -1;
    cats.stage().classList.toggle('opened', open >= 0);
    all.forEach((cell, i) => cell.classList.toggle('open', i === open));
    const bar = find('#over-stage .grid-bar');
    bar.hidden = open < 0;
    find('[data-do=back]').textContent = `${open + 1} · back to ${all.length}`;
    find('[data-do=before]').disabled = open === 0;
    find('[data-do=after]').disabled = open === all.length - 1;
    cats.setCurrent(open < 0 ? null : cats.recipes()[open]);
    cats.walkFor(open === 0);
    cats.keepOpened(open);
    cats.stage().dispatchEvent(new CustomEvent('cat-open', {bubbles: true}));
  }

  // As it is when it is asked for: of quick steps the server hears the last.
  cats.openIndex = () => String(open < 0 ? -cells().length : open);
  cats.opened = () => (open < 0 ? null : cats.recipes()[open]);
  cats.back = () => { const was = open; if (was >= 0) { show(-1); cells()[was]?.focus(); } };
  cats.step = (way) => {
    const count = cells().length;
    if (open < 0 && count > 1) show(way > 0 ? 0 : count - 1);
    else if (open < 0) cats.along(way);
    else if (cells()[open + way]) show(open + way);
  };

  document.addEventListener('click', (event) => {
    const cell = event.target.closest?.('#stage .stage > button');
    if (cell && open < 0) show(cells().indexOf(cell));
  });
  cats.does('back', cats.back);
  cats.does('before', () => cats.step(-1));
  cats.does('after', () => cats.step(1));
  cats.onDrawn((drawn) => {
    open = -1;
    find('#over-stage .grid-bar').hidden = true;
    if (again < 0 || drawn.busy || !drawn.mine) return;
    const index = again;
    again = -1;
    setTimeout(() => show(index)); // after all others have heard of the grid
  });
})();
