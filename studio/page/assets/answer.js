// Every click is answered at once, before the server has: what was asked for, in the line under the
// stage, until the server's own words or cat come.
(() => {
  const WORDS = {
    generate: 'Asking for a cat', vary: 'Asking for nine variations',
    'vary-again': 'Asking for nine variations', 'from-picture': 'Sending your picture',
    repaint: 'Sending your picture', save: 'Writing the file', download: 'Writing the file',
    sheet: 'Writing the sheet', zip: 'Writing the zip', animate: 'Asking for the film',
    'animate-it': 'Asking for the film', morph: 'Asking for the film',
  };
  const PATIENCE = 20_000; // ms: then the words would only be wrong
  let timer = 0, above = false;

  function say(words) {
    const line = cats.find('#ack');
    if (!line || line.textContent === words) return;
    line.textContent = words;
    cats.find('#left').classList.toggle('asked', words !== '');
    clearTimeout(timer);
    if (words) timer = setTimeout(() => say(''), PATIENCE);
  }

  const comeTo = (what) => what?.scrollIntoView(
    {behavior: cats.calm() ? 'auto' : 'smooth', block: 'nearest'});

  document.addEventListener('click', (event) => {
    const id = event.target.closest?.('button')?.id;
    if (WORDS[id]) { say(WORDS[id]); above = Boolean(event.target.closest('#play')); }
    else if (event.target.closest?.('#strip .thumb')) { say('Asking for this cat'); above = true; }
  });

  function ask(words) { say(words); above = true; }
  for (const kind of ['change', 'drop']) { // a file that was chosen, or dropped
    document.addEventListener(kind, (event) => {
      const isFile = kind === 'drop' || event.target.type === 'file';
      if (isFile && event.target.closest?.('#restore')) ask('Reading the PNG');
    });
  }
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && event.target.matches?.('#seed input')) ask('Asking for a cat');
  });

  const heard = new MutationObserver((changes) => {
    const place = (node) => (node.nodeType === 1 ? node : node.parentElement);
    const isAnswer = changes.some(({target}) => place(target)?.closest(
      // not Gradio's own signs of waiting beside them
      '#status .prose, #stage .prose, .note .prose, .toast-wrap, #film, #morph-film'));
    if (isAnswer) say('');
    for (const node of changes.flatMap(({addedNodes}) => [...addedNodes])) {
      if (node.matches?.('#film, #morph-film')) comeTo(node.closest('.made'));
    }
  });
  heard.observe(document.documentElement, {subtree: true, childList: true, characterData: true});
  cats.answered = () => say('');

  cats.onDrawn((drawn) => { // a tool below has started: the page moves to where its cat appears
    if (!above || !(drawn.busy || drawn.recipes.length)) return;
    above = false;
    cats.closeSheets();
    comeTo(cats.find('#easel'));
  });
})();
