// Nodes by place: a map of layers and ops, and a table of them.

const LAYERS_SHOWN = 512;

function drawHeat(run) {
  const { head } = run;
  const total = head.places.reduce((sum, place) => sum + place.total_ns, 0);
  const layers = [...new Set(head.places.map((place) => place.layer).filter((layer) => layer !== null))].sort(
    (a, b) => a - b,
  );
  if (!total) return;
  show('heat', 'Layers');
  const shown = layers.slice(0, LAYERS_SHOWN);
  const inLayers = new Map(
    head.places.filter((place) => place.layer !== null).map((place) => [`${place.layer} ${place.op}`, place]),
  );
  const ops = head.ops.filter((op) => shown.some((layer) => inLayers.has(`${layer} ${op}`)));
  const inside = head.places.filter((place) => place.layer !== null);
  const largest = inside.reduce((most, place) => Math.max(most, place.total_ns), 1);
  const readout = byId('heat-readout');
  const tell = (place) => {
    readout.textContent = placeText(place, total);
  };
  const cell = (place) => heatCell(place, place ? place.total_ns / largest : 0, tell);
  const every = Math.max(1, Math.ceil(shown.length / 16));
  const rows = ops.map((op) =>
    make(
      'tr',
      {},
      make('th', { scope: 'row', text: op }),
      ...shown.map((layer) => cell(inLayers.get(`${layer} ${op}`))),
    ),
  );
  const grid = make(
    'table',
    { class: 'heat', style: `min-width:${84 + 14 * shown.length}px`, onkeydown: (event) => moveInGrid(event, grid) },
    make('caption', { text: 'Share of node time by layer and op' }),
    make(
      'thead',
      {},
      make(
        'tr',
        {},
        make('th', { scope: 'col', class: 'words', text: 'layer' }),
        ...shown.map((layer, at) => make('th', { scope: 'col', text: at % every ? '' : layer })),
      ),
    ),
    make('tbody', {}, ...rows),
  );
  const outside = head.places
    .filter((place) => place.layer === null)
    .map((place) =>
      make(
        'li',
        {},
        make('span', { class: 'swatch', style: heatStyle(Math.min(1, place.total_ns / largest)) }),
        make('span', { text: `${place.op} ${percent((100 * place.total_ns) / total)}` }),
      ),
    );
  const first = grid.querySelector('td[data-place]');
  if (first) first.tabIndex = 0;
  byId('heat-map').append(
    ...(shown.length ? [make('div', { class: 'scroll' }, grid)] : []),
    make('ul', { class: 'outside' }, make('li', { class: 'note', text: 'Outside the layers:' }), ...outside),
  );
  if (layers.length > shown.length) {
    byId('heat-map').append(
      make('p', {
        class: 'alarm',
        text: `The map shows the first ${LAYERS_SHOWN} of ${count(layers.length)} layers; the table below has all.`,
      }),
    );
  }
  tell(head.places.reduce((a, b) => (b.total_ns > a.total_ns ? b : a)));
}

const heatStyle = (share) => `--share:${(100 * share).toFixed(1)}%`;

function heatCell(place, share, tell) {
  if (!place) return make('td');
  const say = () => tell(place);
  return make('td', {
    'data-place': true,
    tabindex: '-1',
    style: heatStyle(share),
    onmouseenter: say,
    onfocus: say,
    'aria-label': placeName(place),
  });
}

function placeText(place, total) {
  const roof = place.read_peak_percent === null ? '' : `, ${percent(place.read_peak_percent)} of the read peak`;
  const rate = place.gb_s === null ? '' : `, ${digits(place.gb_s)} GB/s${roof}`;
  return (
    `${placeName(place)}: ${percent((100 * place.total_ns) / total)} of node time, ` +
    `${duration(place.total_ns)} in ${counted(place.count, 'run')}, ` +
    `median ${duration(place.p50_ns)}${rate}.`
  );
}

function moveInGrid(event, grid) {
  const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
  const from = event.target.closest('td');
  if (!step || !from) return;
  event.preventDefault();
  const row = grid.rows[from.parentElement.rowIndex + step[1]];
  const to = row?.cells[from.cellIndex + step[0]];
  if (!to?.dataset || to.dataset.place === undefined) return;
  from.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}

function drawNodes(run) {
  const { head } = run;
  if (!head.places.length) return;
  show('nodes', 'Nodes');
  const total = head.places.reduce((sum, place) => sum + place.total_ns, 0);
  const kernels = kernelsByPlace(head);
  const hasRoof = head.places.some((place) => place.above_roof_ns !== null);
  const column = (title, value, text, tip) => ({ title, value, text: (place) => text(value(place)), tip });
  const columns = [
    {
      title: 'Layer',
      value: (place) => place.layer ?? -1,
      text: (place) => place.layer ?? '–',
      tip: 'From 0; – outside the layers',
    },
    { title: 'Op', words: true, value: (place) => place.op, cell: (place) => opCell(place.op) },
    column('Time', (place) => place.total_ns, duration, 'Exclusive: what overlaps an earlier node counts once'),
    column('Share', (place) => (100 * place.total_ns) / (total || 1), percent, 'Of all node time'),
    ...(hasRoof
      ? [
          column(
            'Above roof',
            (place) => place.above_roof_ns,
            duration,
            'Time less the least time by the measured peaks: what there is to win',
          ),
        ]
      : []),
    column('Runs', (place) => place.count, count, 'How often it was timed'),
    column('p50', (place) => place.p50_ns, duration, 'Median of the exclusive times'),
    column('p99', (place) => place.p99_ns, duration, 'Exclusive time that 99 of 100 runs do not exceed'),
    column('GB/s', (place) => place.gb_s, digits, 'Least bytes that the algorithm must move, by the time'),
    ...(hasRoof
      ? [
          column(
            'Read peak',
            (place) => place.read_peak_percent,
            percent,
            'Share of the measured read peak of memory or cache',
          ),
          {
            title: 'Level',
            words: true,
            value: (place) => place.level,
            text: (place) => place.level ?? '–',
            tip: 'Where the working set lives',
          },
        ]
      : []),
    column('GFLOP/s', (place) => place.gflop_s, digits, 'Operations by the time'),
    column(
      'Wait',
      (place) => place.wait_percent,
      percent,
      'Share of the workers’ time that they wait for each other at its end',
    ),
    {
      title: 'Kernel',
      words: true,
      value: (place) => kernels.get(place).join(' '),
      cell: (place) =>
        make('span', { class: 'name', title: kernels.get(place).join('\n'), text: kernels.get(place).join(', ') }),
    },
  ];
  const sortBy = columns.findIndex(({ title }) => title === (hasRoof ? 'Above roof' : 'Time'));
  byId('nodes-table').append(
    makeTable({
      columns,
      rows: head.places,
      sortBy,
      caption: 'Nodes by place',
      filterHint: 'Filter: layer 3, mlp, kernel …',
      filterText: (place) =>
        [
          place.layer === null ? 'outside' : `layer ${place.layer}`,
          place.op,
          place.level,
          ...kernels.get(place),
        ].join(' '),
    }),
  );
}

const opCell = (op) => make('span', { class: 'op' }, make('i', { class: `part ${opClass(op)}` }), op);

function kernelsByPlace(head) {
  const names = new Map(head.places.map((place) => [place, new Set()]));
  for (const graph of head.graphs) {
    graph.places.forEach((place, at) => names.get(head.places[place])?.add(head.kernels[graph.kernels[at]]));
  }
  return new Map([...names].map(([place, kernels]) => [place, [...kernels]]));
}
