// What the server refuses is said, also before Gradio's own page listens: behind a proxy that hides
// who asks, each call is refused, and the page would stay empty without a word.
(() => {
  const ask = window.fetch;
  let line = null;

  function say(sentence) {
    line?.remove();
    line = document.createElement('p');
    line.id = 'refused';
    line.setAttribute('role', 'alert');
    line.style.cssText = 'position:fixed;inset:0 0 auto;z-index:9999;margin:0;padding:.8em 1em;' +
      'background:#7f1d1d;color:#fff;font:1rem/1.4 system-ui,sans-serif';
    const close = document.createElement('button');
    close.textContent = 'Close';
    close.style.cssText = 'float:right;padding:0 .6em;border:1px solid;border-radius:.3em;' +
      'background:none;color:inherit;font:inherit;cursor:pointer';
    close.onclick = () => line.remove();
    line.append(close, sentence);
    document.body.append(line);
  }

  window.fetch = async (...request) => {
    const answer = await ask(...request);
    const path = new URL(answer.url || '/', location.href).pathname;
    const isCall = path.includes('/gradio_api/') && request[1]?.method === 'POST';
    if (answer.ok && isCall) line?.remove();
    if ([403, 429].includes(answer.status) && path.includes('/gradio_api/')) {
      answer.clone().json().then((values) => values.error && say(values.error), () => {});
    }
    return answer;
  };
})();
