// On a phone: settings and tools come from below as sheets, a bar at the bottom stays, and a swipe
// goes to the next cat.
(() => {
  const {find} = cats;
  const SWIPE = 50; // pixels
  const isPhone = () => matchMedia('(max-width: 640px)').matches;
  let from = null;

  cats.closeSheets = () => document.body.classList.remove('sheet-settings', 'sheet-tools');
  cats.openSheet = (name) => {
    cats.closeSheets();
    if (!isPhone()) return;
    withClose(find(name === 'settings' ? '#settings' : '#play'));
    document.body.classList.add(`sheet-${name}`);
  };
  function withClose(sheet) { // once: Gradio leaves what it does not know
    if (sheet.querySelector(':scope > .close')) return;
    const button = Object.assign(document.createElement('button'),
      {className: 'close', type: 'button', textContent: '×', ariaLabel: 'Close'});
    button.addEventListener('click', cats.closeSheets);
    sheet.prepend(button);
  }
  cats.does('settings', () => cats.openSheet('settings'));
  cats.does('count', () => {
    const all = [...document.querySelectorAll('#count input')];
    const at = all.findIndex((input) => input.checked);
    all[(at + 1) % all.length]?.click();
  });

  function label() {
    const coat = find('#coat input:checked'), count = find('#count input:checked');
    const [left, right] = [find('.bar-coat'), find('.bar-count')];
    if (left && coat) {
      left.textContent = coat.value === 'any' ? 'Any coat' : coat.value;
      left.ariaLabel = `Coat and settings: ${left.textContent}`;
    }
    if (right && count) {
      right.textContent = `×${count.value}`;
      right.ariaLabel = `How many cats: ${count.value}`;
    }
  }
  cats.label = () => setTimeout(label);
  document.addEventListener('change', () => setTimeout(label));
  cats.onDrawn(() => setTimeout(label));

  // What lies under the shade is not pressed by the tap that closes a sheet. An option of a list is gone
  // by the end of a tap, so where it began counts.
  let outside = false;
  document.addEventListener('pointerdown', (event) => {
    outside = !event.target.closest?.('#settings, #play, #bar, #actions, [role=listbox], .options');
  });
  document.addEventListener('click', () => { if (outside) cats.closeSheets(); });
  document.addEventListener('touchstart', (event) => {
    const isOne = event.touches.length === 1 && event.target.closest?.('#stage, #over-stage');
    from = isOne ? event.touches[0] : null;
  }, {passive: true});
  document.addEventListener('touchend', (event) => {
    if (!from) return;
    const to = event.changedTouches[0];
    const [right, down] = [to.clientX - from.clientX, to.clientY - from.clientY];
    from = null;
    if (Math.abs(right) > SWIPE && Math.abs(down) < Math.abs(right) / 2) cats.step(right < 0 ? 1 : -1);
  }, {passive: true});
})();
