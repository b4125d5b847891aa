// Keys, and a sheet that lists them. None acts while somebody writes or another thing has the focus.
(() => {
  const {find} = cats;
  const PRESSED = {
    g: () => find('#generate')?.click(), s: () => find('#save')?.click(),
    v: () => find('#vary')?.click(), z: () => cats.backInTime(),
    arrowleft: () => cats.step(-1), arrowright: () => cats.step(1), '?': () => toggle(),
  };

  function toggle() {
    const sheet = find('#keys');
    if (sheet.open) sheet.close(); else sheet.showModal();
  }
  cats.does('keys', toggle);

  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') {
      if (!find('dialog[open]')) { cats.closeSheets(); cats.back(); }
      return; // of a dialog, it closes that and nothing else
    }
    const field = event.target.closest?.('#steps input, #guidance input');
    if (event.key === 'Enter' && field) { find('#generate').click(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey || !find('#generate')?.offsetParent) return;
    if (event.target.closest?.('input, textarea, select, [contenteditable], [role=tab], canvas')) return;
    const action = PRESSED[event.key.toLowerCase()];
    if (!action || (find('#keys')?.open && event.key !== '?')) return;
    event.preventDefault();
    action();
  });

  // A seed is a whole number, in the box too.
  const whole = (event) => {
    const field = event.target;
    if (!field.matches?.('#seed input') || !field.value || Number.isInteger(Number(field.value))) return;
    field.value = String(Math.round(Number(field.value)));
    field.dispatchEvent(new Event('input', {bubbles: true}));
  };
  document.addEventListener('change', whole, true);
  document.addEventListener('keydown', (event) => { if (event.key === 'Enter') whole(event); }, true);
})();
