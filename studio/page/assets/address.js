// The cat on the stage and the tab stand in the address, so that Back and a reload come back to them.
(() => {
  const OURS = [
    'seed', 'coat', 'any_coat', 'steps', 'sampler', 'guidance', 'model', 'model_hash', 'count',
    'towards_seed', 'towards_coat', 'towards', 'turned', 'open',
  ];

  function set(change) {
    const query = new URLSearchParams(location.search);
    change(query);
    const text = query.toString();
    history.replaceState(history.state, '', location.pathname + (text ? `?${text}` : ''));
  }

  cats.onDrawn((drawn) => {
    if (drawn.busy || !drawn.recipes.length) return;
    set((query) => {
      OURS.forEach((name) => query.delete(name));
      if (!drawn.mine) return; // an example
      new URLSearchParams(drawn.link).forEach((value, name) => query.set(name, value));
    });
  });

  cats.keepOpened = (index) => set((query) => { // of a grid; none below 0
    if (index < 0) query.delete('open');
    else query.set('open', index + 1);
  });

  cats.linkOf = (recipe) => { // of one cat; none where a picture would have to be in it
    const {version, picture, ...values} = recipe;
    if (picture) return '';
    if (values.any_coat) values.any_coat = 'True';
    return new URLSearchParams({...values, count: 1}).toString();
  };

  document.addEventListener('click', (event) => {
    const tab = event.target.closest?.('#tabs > .tab-wrapper [role=tab]');
    if (!tab) return;
    set((query) => {
      if (tab.dataset.tabId === 'generate') query.delete('tab');
      else query.set('tab', tab.dataset.tabId);
    });
  });

  const wanted = new URLSearchParams(location.search).get('tab');
  if (wanted) {
    const tab = `#tabs > .tab-wrapper [role=tab][data-tab-id="${CSS.escape(wanted)}"]`;
    cats.when(tab).then((button) => button?.click());
  }
})();
