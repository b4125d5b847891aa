window.catWalk = (step) => {
  const cat = document.querySelector('.stage img.cat');
  const frames = document.querySelectorAll('.film i');
  if (!cat || !frames.length) return;
  cat.src = frames[Math.max(0, Math.min(frames.length, step) - 1)].dataset.frame;
};
window.catPixels = (on) => {
  document.querySelector('.gradio-container').classList.toggle('pixels', on);
};
window.catShow = () => {
  document.querySelector('#stage').scrollIntoView({behavior: 'smooth', block: 'nearest'});
};
window.catLink = () => {
  const button = document.querySelector('#copy');
  const query = document.querySelector('.stage').dataset.link;
  const say = (text) => {
    button.dataset.said = document.querySelector('#said').textContent = text;
    setTimeout(() => delete button.dataset.said, 2000);
  };
  if (!query) return say('No link: save the PNG');
  const link = location.origin + location.pathname + '?' + query;
  say('Copied');
  const note = document.createElement('textarea');
  note.value = link; document.body.append(note); note.select();
  try { document.execCommand('copy'); } finally { note.remove(); button.focus(); }
  if (navigator.clipboard) navigator.clipboard.writeText(link).catch(() => {});
  window.catLinkCopied = link;
};
document.addEventListener('keydown', (event) => {  // the seed field has an Enter of its own
  const field = event.target.closest('#count input, #steps input, #guidance input');
  if (event.key === 'Enter' && field) document.querySelector('#generate').click();
});
