// The owner's part of the page: signing in, sending photos, and choosing what is seen of each.
// All listeners are on the document, since Gradio draws and drops the tab as it likes.
(() => {
  const PARALLEL = 3; // uploads at once
  const MIN_SIDE = 64; // pixels of a square, as diffusion/data/copies.py
  const NO_ANSWER = 'The server does not answer. Try again.';
  const find = (selector) => document.querySelector(selector);
  const leftBehind = (name) =>
    name.split('/').some((part) => part.startsWith('.') || part === '__MACOSX') ||
    /(^|\/)(Thumbs\.db|desktop\.ini)$/.test(name);

  async function post(path, body) {
    const answer = await fetch(path, {
      method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify(body),
    }).catch(() => { throw new Error(NO_ANSWER); });
    const values = await answer.json().catch(() => ({error: NO_ANSWER}));
    if (answer.status === 401) look();
    if (!answer.ok) throw new Error(values.error);
    return values;
  }

  function look() { // Gradio's own view of who is signed in and how the trainings stand
    find('#admin-look')?.click();
  }

  function say(place, sentence, isError) {
    const line = find(`${place} .admin-message`);
    if (!line) return;
    line.textContent = sentence;
    line.classList.toggle('error', Boolean(isError));
  }

  function warn(sentence, isError) { // about the photos
    say('.admin-drop', sentence, isError);
    announce(sentence);
  }

  function announce(sentence) { // to screen readers, where the line itself changes too often
    const line = find('#admin-said');
    if (line) line.textContent = sentence;
  }

  // -- signing in and out ---------------------------------------------------------------------

  document.addEventListener('submit', async (event) => {
    if (event.target.dataset?.admin !== 'sign-in') return;
    event.preventDefault();
    const field = event.target.elements.password;
    try {
      await post('admin/sign-in', {password: field.value});
      field.value = '';
      say('.admin-sign-in', '');
      look();
    } catch (error) {
      say('.admin-sign-in', error.message, true);
      field.select();
    }
  });

  window.catSignOut = async () => {
    await post('admin/sign-out', {}).catch(() => {});
    return [];
  };

  if (window.top !== window.self) document.documentElement.classList.add('admin-in-frame');

  document.addEventListener('click', (event) => { // before Gradio hears of it
    const button = event.target.closest?.('.admin-confirm, #admin-start');
    if (!button) return;
    let refused = false;
    if (button.id === 'admin-start') {
      refused = sending;
      if (refused) warn('Some photos are still being sent. Start when they have arrived.');
    } else {
      refused = !confirm(`${button.textContent.trim()}: ${target(button)}? This cannot be undone.`);
    }
    if (refused) {
      event.preventDefault();
      event.stopImmediatePropagation();
    }
  }, true);

  function target(button) { // what is chosen of the trainings, or of the models
    if (button.dataset.title) return button.dataset.title;
    return find('#admin-trainings input:checked')?.closest('label').textContent.trim();
  }

  // -- sending photos -------------------------------------------------------------------------

  async function filesOf(entry) { // a dropped folder, any nesting
    if (entry.isFile) {
      const file = await new Promise((done, fail) => entry.file(done, fail));
      return [{file, name: entry.fullPath.replace(/^\//, '')}];
    }
    const reader = entry.createReader();
    const found = [];
    for (;;) { // it hands out a hundred at a time
      const some = await new Promise((done, fail) => reader.readEntries(done, fail));
      if (!some.length) return found;
      for (const child of some) found.push(...await filesOf(child));
    }
  }

  function sendOne(set, {file, name}, onProgress) {
    return new Promise((done) => {
      const request = new XMLHttpRequest(); // fetch tells nothing of its progress
      request.open('POST', `admin/upload?${new URLSearchParams({set, name})}`);
      request.setRequestHeader('content-type', 'application/octet-stream');
      request.upload.onprogress = (event) => onProgress(event.loaded);
      request.onload = () => {
        if (request.status === 200) return done('');
        if (request.status === 401) look();
        try {
          done(JSON.parse(request.responseText).error);
        } catch {
          done(`${name} could not be sent.`);
        }
      };
      request.onerror = () => done(`${name} could not be sent.`);
      request.send(file);
    });
  }

  let sending = false;
  const chosen = []; // all that is on its way; more can be chosen meanwhile
  let show; // how far it is

  async function send(files) {
    chosen.push(...files.filter(({name}) => !leftBehind(name)));
    if (sending) return show();
    if (!chosen.length) return;
    sending = true;
    const bar = find('.admin-drop progress');
    const loaded = new Map();
    const problems = [];
    let next = 0;
    let done = 0;
    bar.hidden = false;
    show = () => {
      const total = chosen.reduce((sum, {file}) => sum + file.size, 1);
      bar.value = [...loaded.values()].reduce((a, b) => a + b, 0) / total;
      say('.admin-drop', `Sent ${done} of ${chosen.length}`);
    };
    show();
    announce('The photos are being sent.');
    try {
      delete find('#admin-photos')?.dataset.shown; // another device may have begun a set meanwhile
      await showPhotos();
      if (!find('#admin-photos')?.dataset.shown) throw new Error('Nothing was sent. Try again.');
      const set = find('#admin-photos [data-set]')?.dataset.set ||
        (await post('admin/sets', {})).set;
      const worker = async () => {
        while (next < chosen.length) {
          const item = chosen[next++];
          const problem = await sendOne(set, item, (bytes) => { loaded.set(item, bytes); show(); });
          if (problem) problems.push(problem);
          else done += 1;
          loaded.set(item, item.file.size);
          show();
        }
      };
      await Promise.all(Array.from({length: PARALLEL}, worker));
      const more = problems.length - 3;
      warn(problems.slice(0, 3).join(' ') + (more > 0 ? ` And ${more} more.` : ''), problems.length);
      if (!problems.length) announce('The photos are sent.');
    } catch (error) {
      warn(error.message, true);
    } finally {
      bar.hidden = true;
      sending = false;
      chosen.length = 0;
      showPhotos();
    }
  }

  document.addEventListener('change', (event) => {
    if (event.target.dataset?.admin !== 'files') return;
    send([...event.target.files].map((file) => ({file, name: file.webkitRelativePath || file.name})));
    event.target.value = '';
  });

  document.addEventListener('keydown', (event) => { // a label is no button by itself
    const input = event.target.matches?.('label.admin-button') && event.target.querySelector('input');
    if (input && (event.key === 'Enter' || event.key === ' ')) {
      event.preventDefault();
      input.click();
    }
  });

  for (const kind of ['dragover', 'dragleave', 'drop']) {
    document.addEventListener(kind, async (event) => {
      const area = event.target.closest?.('.admin-drop');
      if (!area) return;
      event.preventDefault();
      area.classList.toggle('over', kind === 'dragover');
      if (kind !== 'drop') return;
      const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.());
      const plain = [...event.dataTransfer.files]; // both must be read before the first await
      const found = await Promise.all(entries.filter(Boolean).map(filesOf)).catch(() => []);
      send(found.flat().length ? found.flat() : plain.map((file) => ({file, name: file.name})));
    });
  }

  // -- the photos -----------------------------------------------------------------------------

  const photo = (number) => find(`.admin-photo[data-number="${number}"]`);

  async function showPhotos() {
    const place = find('#admin-photos');
    if (!place) return;
    const answer = await fetch('admin/sets/current').catch(() => null);
    if (!answer?.ok) return;
    const html = await answer.text();
    place.dataset.shown = 'true';
    if (place.innerHTML === html || place.dataset.html === html) return;
    const closed = place.querySelector('details:not([open])');
    const scrolled = place.querySelector('.admin-photos')?.scrollTop;
    const focused = place.querySelector('.admin-photo:focus')?.dataset.number;
    place.innerHTML = html;
    place.dataset.html = html;
    if (closed) place.querySelector('details')?.removeAttribute('open');
    if (scrolled) place.querySelector('.admin-photos')?.scrollTo(0, scrolled);
    if (focused) photo(focused)?.focus({preventScroll: true});
  }

  document.addEventListener('visibilitychange', () => document.hidden || showPhotos());

  setInterval(() => {
    const place = find('#admin-photos');
    if (!place || document.hidden) return;
    const waiting = Number(place.querySelector('[data-waiting]')?.dataset.waiting || 0);
    if (!place.dataset.shown || waiting || sending) showPhotos();
  }, 1000);

  document.addEventListener('click', async (event) => {
    const button = event.target.closest?.('[data-admin]');
    if (button?.dataset.admin === 'photo') openPhoto(button);
    if (button?.dataset.admin === 'keep-both') {
      const set = button.closest('[data-set]').dataset.set;
      await post(`admin/sets/${set}/keep-both`, {picture: Number(button.dataset.number)})
        .catch((error) => warn(error.message, true));
      showPhotos();
    }
    if (button?.dataset.admin !== 'again') return;
    if (sending) {
      warn('Some photos are still being sent. Start over when they have arrived.');
    } else if (confirm('Discard these photos and start over?')) {
      await post('admin/sets', {}).catch((error) => warn(error.message, true));
      showPhotos();
    }
  });

  // -- one photo: a square on it --------------------------------------------------------------

  function openPhoto(button) {
    const set = button.closest('[data-set]').dataset.set;
    const {number, width, height} = button.dataset;
    const removed = button.classList.contains('removed');
    const size = [Number(width), Number(height)];
    let square = button.dataset.square.split(',').map(Number);
    const dialog = document.createElement('dialog');
    dialog.className = 'admin-crop';
    dialog.setAttribute('aria-label', `The part that the model sees of ${button.title}`);
    dialog.innerHTML = `
      <div class="admin-crop-picture"><img draggable="false"><div tabindex="0" role="group"></div></div>
      <p>Drag a square over the cat's head. Arrow keys move it, + and − change its size.</p>
      <div class="admin-row">
        <button type="button" class="admin-button primary" value="save">Use this square</button>
        <button type="button" class="admin-button" value="centre">Centre</button>
        <button type="button" class="admin-button" value="remove"></button>
        <button type="button" class="admin-button" value="close">Close</button>
      </div><p class="admin-message" role="status"></p>`;
    const image = dialog.querySelector('img');
    const frame = image.nextElementSibling;
    const area = image.parentElement;
    image.src = `admin/sets/${set}/picture/${number}.jpg`;
    // As large as there is room for, in its own proportions, and before it has arrived.
    image.style.width = `min(640px, 86vw, ${60 * size[0] / size[1]}vh)`;
    image.style.aspectRatio = `${size[0]} / ${size[1]}`;
    image.alt = button.title;
    frame.setAttribute('aria-label', 'Square');
    dialog.querySelector('[value=remove]').textContent = removed ? 'Put back' : 'Remove this photo';

    const draw = () => {
      const [left, top, side] = square;
      frame.style.left = `${100 * left / size[0]}%`;
      frame.style.top = `${100 * top / size[1]}%`;
      frame.style.width = `${100 * side / size[0]}%`;
      frame.style.height = `${100 * side / size[1]}%`;
    };
    const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
    const place = (left, top, side) => {
      side = clamp(Math.round(side), MIN_SIDE, Math.min(...size));
      square = [
        clamp(Math.round(left), 0, size[0] - side), clamp(Math.round(top), 0, size[1] - side), side,
      ];
      draw();
    };
    const centre = () => {
      const side = Math.min(...size);
      place((size[0] - side) / 2, (size[1] - side) / 2, side);
    };
    draw();

    let start = null;
    const at = (event) => {
      const box = image.getBoundingClientRect();
      return [
        clamp((event.clientX - box.left) / box.width, 0, 1) * size[0],
        clamp((event.clientY - box.top) / box.height, 0, 1) * size[1],
      ];
    };
    area.addEventListener('pointerdown', (event) => {
      start = at(event);
      area.setPointerCapture(event.pointerId);
    });
    area.addEventListener('pointermove', (event) => {
      if (!start) return;
      const [x, y] = at(event);
      const [right, down] = [x >= start[0], y >= start[1]];
      const room = Math.min(
        right ? size[0] - start[0] : start[0], down ? size[1] - start[1] : start[1],
      );
      const side = Math.min(Math.max(Math.abs(x - start[0]), Math.abs(y - start[1])), room);
      if (side < 4) return; // a click is no square
      place(right ? start[0] : start[0] - side, down ? start[1] : start[1] - side, side);
    });
    for (const kind of ['pointerup', 'pointercancel']) {
      area.addEventListener(kind, () => { start = null; });
    }
    frame.addEventListener('keydown', (event) => {
      const step = Math.max(1, Math.round(Math.min(...size) / 50));
      const [left, top, side] = square;
      const moves = {
        ArrowLeft: [left - step, top, side], ArrowRight: [left + step, top, side],
        ArrowUp: [left, top - step, side], ArrowDown: [left, top + step, side],
        '+': [left - step / 2, top - step / 2, side + step],
        '-': [left + step / 2, top + step / 2, side - step],
      };
      const move = moves[event.key === '=' ? '+' : event.key === '−' ? '-' : event.key];
      if (!move) return;
      event.preventDefault();
      place(...move);
    });
    dialog.addEventListener('click', async (event) => {
      const action = event.target.value;
      if (action === 'centre') return centre();
      try {
        if (action === 'save') {
          await post(`admin/sets/${set}/crop`, {picture: Number(number), square});
        } else if (action === 'remove') {
          await post(`admin/sets/${set}/remove`, {picture: Number(number), removed: !removed});
        } else if (action !== 'close') {
          return;
        }
        if (action !== 'close') await showPhotos(); // before the focus goes back to one of them
        dialog.close();
      } catch (error) {
        const line = dialog.querySelector('.admin-message');
        line.textContent = error.message;
        line.classList.add('error');
      }
    });
    dialog.addEventListener('close', () => {
      dialog.remove();
      photo(number)?.focus();
    });
    document.body.append(dialog);
    dialog.showModal();
  }
})();
