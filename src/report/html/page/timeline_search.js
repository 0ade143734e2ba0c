// Finds nodes, steps and requests in the timeline.

function timelineTools(run, view, api) {
  const button = (text, title, onclick) => make('button', { type: 'button', class: 'quiet', text, title, onclick });
  const found = make('span', { class: 'note', role: 'status' });
  const hint = 'Search: mlp.up, layer 3, step 20, request 7 …';
  const input = make('input', {
    type: 'search',
    placeholder: hint,
    'aria-label': hint,
    spellcheck: 'false',
    oninput: () => {
      found.textContent = search(run, view, input.value);
    },
    onkeydown: (event) => {
      if (event.key === 'Enter') found.textContent = next(view, event.shiftKey ? -1 : 1) ?? found.textContent;
      if (event.key === 'Escape') {
        input.value = '';
        found.textContent = search(run, view, '');
        input.blur();
      }
    },
  });
  api.search = (text) => {
    input.value = text;
    return (found.textContent = search(run, view, text));
  };
  return make(
    'div',
    { class: 'tools' },
    input,
    button('←', 'Earlier', () => pan(view, -0.5)),
    button('→', 'Later', () => pan(view, 0.5)),
    button('+', 'Closer', () => zoom(view, 0.5)),
    button('−', 'Wider', () => zoom(view, 2)),
    button('All', 'The whole recording', () => setView(view, 0, view.end)),
    found,
  );
}

/** Leaves out nodes that do not match, and says how many do. A step or request is shown. */
function search(run, view, text) {
  const words = text.toLowerCase().trim();
  view.matches = null;
  requestDraw(view);
  if (!words) return '';
  const [, what, number] = /^(step|request)\s+([\d,]+)$/.exec(words) ?? [];
  if (what) return searchNumber(run, view, what, Number(number.replace(/,/g, '')));
  const nodes = nodesOf(run);
  const kernels = kernelsByPlace(run.head);
  const names = run.head.places.map((place, at) =>
    [run.placeNames[at], ...kernels.get(place)].join(' ').toLowerCase(),
  );
  view.matches = names.map((name) => wordsOf(words).every((word) => holds(name, word)));
  let matches = 0;
  for (let at = 0; at < nodes.count; at++) matches += view.matches[nodes.place[at]] ? 1 : 0;
  return matches ? `${counted(matches, 'node')}; Enter for the next` : 'no node matches';
}

function searchNumber(run, view, what, number) {
  const at = run.column(what === 'step' ? 'step.number' : 'request.id').indexOf(number);
  if (at < 0) return `there is no ${what} ${number}`;
  if (what === 'step') showStep(view, at, false);
  else {
    const [start, ns] = [run.column('request.start')[at], run.column('request.ns')[at]];
    setView(view, start - ns * 0.05, start + ns * 1.05);
  }
  return `${what} ${number}`;
}

/** The next node that matches, behind the selected one. */
function next(view, direction) {
  const lane = view.lanes.find((of) => of.place);
  if (!lane || !view.matches) return null;
  let at = view.selected?.lane === lane ? view.selected.at + direction : lowerBound(lane.start, view.from);
  while (at >= 0 && at < lane.count && !view.matches[lane.place[at]]) at += direction;
  if (at < 0 || at >= lane.count) return 'no more';
  showSlice(view, { lane, at }, 12);
  return null;
}

/** Shows a slice with so many times its length around it. */
function showSlice(view, slice, around) {
  const { lane, at } = slice;
  const room = Math.max(VIEW_MIN_NS, lane.end[at] - lane.start[at]) * around;
  setView(view, lane.start[at] - room, lane.end[at] + room);
  select(view, slice);
}

function showStep(view, step, scroll = true) {
  const number = view.run.column('step.number')[step];
  const lane = view.lanes.find(({ name }) => name === 'steps');
  const at = lane ? lane.number.indexOf(number) : -1;
  if (at >= 0) showSlice(view, { lane, at }, 0.05);
  else view.readout.textContent = `The timeline holds no nodes of step ${count(number)}.`;
  if (scroll) byId('timeline').scrollIntoView({ block: 'start' });
}
