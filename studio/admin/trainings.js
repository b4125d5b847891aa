// How a training goes on: in the title of the browser's tab, to screen readers, and as a film; and
// a tuned model beside the one that it was made of.
(() => {
  const find = (selector) => document.querySelector(selector);

  // -- told where nobody looks at the page ----------------------------------------------------

  let title; // the page's own, while another is shown
  let said; // about which training, and what

  function tell() {
    const training = find('#admin-training .admin-training');
    const {title: told, said: now, state} = training?.dataset ?? {};
    if (told) {
      title ??= document.title;
      document.title = told;
    } else if (title && state === 'done' && document.hidden) {
      document.title = now; // until somebody looks
    } else if (title) {
      document.title = title;
      title = undefined;
    }
    const line = find('#admin-said');
    if (line && said === undefined) said = now ?? ''; // so when the page was opened: no news
    else if (line && now && now !== said) line.textContent = said = now;
  }

  setInterval(tell, 1000);
  document.addEventListener('visibilitychange', tell);

  // -- the film of samples --------------------------------------------------------------------

  function showFrame(button) {
    const samples = button.closest('#admin-samples');
    const shown = samples.querySelector('[data-shown]');
    const {src, alt} = button.querySelector('img');
    Object.assign(shown.querySelector('img'), {src, alt});
    shown.querySelector('figcaption').textContent = alt;
    for (const other of samples.querySelectorAll('[data-admin=frame]')) {
      other.setAttribute('aria-pressed', String(other === button));
    }
    const keep = samples.querySelector('[data-act=keep]');
    keep.dataset.more = button.dataset.keep;
    keep.hidden = !button.dataset.keep;
  }

  // -- the focus, when the cards are drawn anew -----------------------------------------------

  let had = null; // what had it: whose, and which button

  document.addEventListener('focusin', ({target}) => {
    const of = target.closest?.('#admin-models [data-of]')?.dataset;
    had = of ? {...of} : null;
  });
  document.addEventListener('pointerdown', ({target}) => {
    if (!target.closest?.('#admin-models')) had = null;
  });
  new MutationObserver(() => {
    if (!had || document.activeElement !== document.body) return;
    const own = [...document.querySelectorAll('#admin-models [data-of]')]
      .filter(({dataset}) => dataset.of === had.of);
    const last = own.find(({dataset}) => dataset.act === had.act) ?? own[0];
    (last?.querySelector('input') ?? last)?.focus({preventScroll: true});
  }).observe(document.documentElement, {subtree: true, childList: true});

  // -- before and after -----------------------------------------------------------------------

  const PAIRS = 4; // of the cats in a row
  const CATS = 8;

  function compare({title, base, before, after}) {
    const dialog = document.createElement('dialog');
    dialog.className = 'admin-compare';
    dialog.setAttribute('aria-label', `${base} and ${title}, the same seeds`);
    dialog.innerHTML = `
      <p class="admin-row spread"><b></b><b></b></p>
      <div class="admin-pairs"></div>
      <input type="range" min="0" max="100" value="50" aria-label="From before to after">
      <button type="button" class="admin-button" autofocus>Close</button>`;
    const [left, right] = dialog.querySelectorAll('b');
    left.textContent = `Before: ${base}`;
    right.textContent = `After: ${title}`;
    for (let i = 0; i < PAIRS; i += 1) {
      const pair = document.createElement('div');
      pair.style.setProperty('--of', i / (CATS - 1));
      for (const [src, name] of [[before, base], [after, title]]) {
        const cat = Object.assign(new Image(), {src, alt: `${name}, cat ${i + 1}`});
        cat.className = 'admin-cat';
        pair.append(cat);
      }
      dialog.querySelector('.admin-pairs').append(pair);
    }
    const slider = dialog.querySelector('input');
    const move = () => dialog.style.setProperty('--at', `${slider.value}%`);
    slider.addEventListener('input', move);
    move();
    dialog.querySelector('button').addEventListener('click', () => dialog.close());
    dialog.addEventListener('close', () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  }

  document.addEventListener('click', (event) => {
    const button = event.target.closest?.('[data-admin]');
    if (button?.dataset.admin === 'frame') showFrame(button);
    if (button?.dataset.admin === 'compare') compare(button.dataset);
  });
})();
