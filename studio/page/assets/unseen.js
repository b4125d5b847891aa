// A picture that the browser cannot decode vanishes from Gradio's editor without a word. Here it is
// said, under the editor, until a picture comes that can be shown.
(() => {
  const EDITORS = {picture: '#picture-unseen', canvas: '#canvas-unseen'}; // and where it is said
  const KINDS = {
    heic: 'HEIC', heif: 'HEIF', tif: 'TIFF', tiff: 'TIFF', jp2: 'JPEG 2000', j2k: 'JPEG 2000',
    psd: 'Photoshop', svg: 'SVG', dng: 'raw', cr2: 'raw', nef: 'raw', arw: 'raw',
  }; // by the end of a name
  let latest = null; // of two that are looked at, the older one says nothing

  function say(editor, sentence) {
    const line = cats.find(`${EDITORS[editor]} p`);
    if (!line || line.textContent === sentence) return;
    line.textContent = sentence;
    if (sentence) line.scrollIntoView({block: 'nearest'});
  }

  function sentenceFor(file) {
    const kind = KINDS[file.name.split('.').pop().toLowerCase()];
    return kind
      ? `Your browser cannot show ${kind} pictures. Save it as JPEG or PNG first.`
      : 'Your browser cannot show this file. Choose another, or save it as JPEG or PNG first.';
  }

  async function look(event, files) {
    const editor = Object.keys(EDITORS).find((id) => event.target.closest?.(`#${id}`));
    const file = files?.[0];
    if (!editor || !file) return;
    latest = file;
    let sentence = '';
    try { (await createImageBitmap(file)).close(); } catch { sentence = sentenceFor(file); }
    if (file === latest) say(editor, sentence);
  }

  // before the editor hears of it: it empties its field, and lets no drop go on
  const first = {capture: true};
  document.addEventListener('change', (event) => look(event, event.target.files), first);
  document.addEventListener('drop', (event) => look(event, event.dataTransfer?.files), first);
  document.addEventListener('click', (event) => {
    if (event.target.closest?.('#take')) say('canvas', '');
  });
})();
