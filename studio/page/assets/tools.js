// What the row of actions under the cat starts in the browser: a tool, a link, a download. Gradio would
// do so only after the server's whole answer to the same click.
(() => {
  const {find} = cats;
  const SETTLE = 500; // ms: Gradio's editor loses a picture that comes before its canvas is laid out

  cats.tool = async (name) => { // opens the tool's tab and goes there
    cats.openSheet('tools');
    const tabs = [...document.querySelectorAll('#play > .tab-wrapper [role=tab]')];
    tabs.find((tab) => tab.textContent.trim() === name)?.click();
    await new Promise(requestAnimationFrame);
    find('#play').scrollIntoView({behavior: cats.calm() ? 'auto' : 'smooth', block: 'start'});
    if (name === 'Repaint' && await cats.when('#canvas canvas')) {
      setTimeout(() => find('#take')?.click(), SETTLE);
    }
  };

  const STARTED = {
    share: () => cats.share(), explore: () => cats.map.around(),
    'animate-it': () => cats.tool('Animate'), 'repaint-it': () => cats.tool('Repaint'),
    more: () => cats.tool('From a picture'),
  };
  document.addEventListener('click', (event) => {
    STARTED[event.target.closest?.('#actions button')?.id]?.();
  });

  cats.save = (file) => {
    cats.answered();
    if (!file?.url) return;
    const link = document.createElement('a');
    link.href = file.url;
    link.download = file.orig_name ?? 'cat.png';
    document.body.append(link);
    link.click();
    link.remove();
  };

  function say(text) {
    const button = find('#share');
    button.dataset.said = find('#said').textContent = text;
    setTimeout(() => delete button.dataset.said, 2000);
  }

  function copy(link) {
    const note = Object.assign(document.createElement('textarea'), {value: link});
    document.body.append(note);
    note.select();
    try { document.execCommand('copy'); } finally { note.remove(); find('#share').focus(); }
    navigator.clipboard?.writeText(link).catch(() => {});
  }

  cats.share = () => {
    const opened = cats.opened();
    const query = opened ? cats.linkOf(opened) : cats.stage()?.dataset.link;
    if (!query) { say('No link: save the PNG'); return; }
    const link = `${location.origin}${location.pathname}?${query}`;
    window.catLinkCopied = link;
    if (navigator.share && matchMedia('(pointer: coarse)').matches) {
      navigator.share({title: document.title, url: link}).catch(() => {});
      return;
    }
    copy(link);
    say('Copied');
  };
})();
