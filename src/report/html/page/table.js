// A table that sorts by a click on a heading and filters by words.

const ROWS_SHOWN = 200;

/**
 * `columns`: {title, value(row), text(row) | cell(row), tip, words}; a column of words sorts upwards first.
 * `sortBy` is a column's index, or null for the order of the rows. `filterText(row)` is what the filter looks into;
 * without it there is no filter. `onChoose(row)` makes rows buttons.
 */
function makeTable({
  columns,
  rows,
  sortBy,
  descending = true,
  caption,
  filterText,
  filterHint,
  onChoose,
}) {
  const state = { sortBy, descending, words: [], limit: ROWS_SHOWN, chosen: null };
  const body = make('tbody');
  const counter = make('span', { class: 'note', role: 'status' });
  const more = make('button', { type: 'button', class: 'quiet', onclick: () => showMore() });
  const headings = columns.map((column, at) => {
    const button = make('button', { type: 'button', title: column.tip, text: column.title, onclick: () => sort(at) });
    return make('th', { scope: 'col', class: column.words ? 'words' : null }, button);
  });
  const table = make(
    'table',
    {},
    make('caption', { text: caption }),
    make('thead', {}, make('tr', {}, ...headings)),
    body,
  );
  const filter =
    filterText &&
    make('input', {
      type: 'search',
      placeholder: filterHint,
      'aria-label': filterHint,
      spellcheck: 'false',
      oninput: () => setFilter(filter.value),
      onkeydown: (event) => {
        if (event.key !== 'Escape') return;
        filter.value = '';
        setFilter('');
        filter.blur();
      },
    });

  const texts = filterText && rows.map((row) => filterText(row).toLowerCase());
  const matches = (_, at) => state.words.every((word) => holds(texts[at], word));

  function sorted() {
    const found = filterText ? rows.filter(matches) : rows.slice();
    if (state.sortBy === null) return found;
    const { value } = columns[state.sortBy];
    const direction = state.descending ? -1 : 1;
    // What is not known is last in both directions.
    return found.sort((rowA, rowB) => {
      const [a, b] = [value(rowA), value(rowB)];
      if (a === null || b === null) return (a === null) - (b === null);
      return direction * (a < b ? -1 : a > b ? 1 : 0);
    });
  }

  function render() {
    const found = sorted();
    body.replaceChildren(...found.slice(0, state.limit).map(rowElement));
    headings.forEach((heading, at) => {
      if (at !== state.sortBy) heading.removeAttribute('aria-sort');
      else heading.setAttribute('aria-sort', state.descending ? 'descending' : 'ascending');
    });
    counter.textContent =
      found.length < rows.length
        ? `${count(found.length)} of ${count(rows.length)} rows`
        : `${count(rows.length)} rows`;
    more.hidden = found.length <= state.limit;
    more.textContent = `Show ${count(Math.min(ROWS_SHOWN, found.length - state.limit))} more`;
  }

  function rowElement(row) {
    const cells = columns.map((column) => {
      const content = column.cell ? column.cell(row) : document.createTextNode(column.text(row));
      return make('td', { class: column.words ? 'words' : null }, content);
    });
    const element = make('tr', { 'aria-selected': onChoose ? String(row === state.chosen) : null }, ...cells);
    if (onChoose) element.addEventListener('click', () => choose(row));
    return element;
  }

  function choose(row) {
    const focused = body.contains(document.activeElement);
    state.chosen = row;
    render();
    if (focused) body.querySelector('[aria-selected=true] button')?.focus();
    onChoose(row);
  }

  function sort(at) {
    const again = at === state.sortBy;
    state.descending = again ? !state.descending : !columns[at].words;
    state.sortBy = at;
    render();
  }

  function setFilter(text) {
    state.words = wordsOf(text);
    state.limit = ROWS_SHOWN;
    render();
  }

  function showMore() {
    state.limit += ROWS_SHOWN;
    render();
  }

  render();
  const tools = filter ? make('div', { class: 'tools' }, filter, counter) : null;
  const scroll = make('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption }, table);
  return make('div', {}, tools, scroll, more);
}
