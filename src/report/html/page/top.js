// The top of the page: what was recorded, whether it is whole, what it cost, what dominates.

function drawSummary({ head }) {
  const { completeness, device, perturbation, window: frame } = head;
  const element = byId('summary');
  element.hidden = false;
  document.title = `${oneLine(head.model)} · vitrum`;
  fill(element, {}, [
    make('h1', { id: 'model', text: head.model, title: head.model }),
    make('p', { class: 'dominates', text: head.dominates }),
    completenessElement(head),
    make(
      'dl',
      { class: 'facts' },
      ...fact('Device', device.name, `${device.kind}, ${device.isa}, ${counted(device.workers, 'worker')}`),
      ...fact('Window', duration(frame.ns), new Date(head.window.start_unix_ms).toISOString().replace('T', ' ')),
      ...fact('Recorded', counted(frame.steps, 'step'), counted(frame.nodes, 'node time')),
      ...fact(
        'Recording costs',
        perturbation ? signed(perturbation.ratio) : 'not measured',
        perturbation
          ? `of step time; 95 % interval ${signed(perturbation.ratio_low)} to ${signed(perturbation.ratio_high)}, ` +
              `${counted(perturbation.pairs, 'pair')} of steps`
          : head.perturbation_note,
      ),
      ...fact('Node times by', head.sources_text, head.sources.library ?? head.sources.absent ?? ''),
      ...fact('Recording', head.recording, `vitrum ${head.version}`),
    ),
    completeness.activity && !completeness.activity.complete
      ? make('p', {
          class: 'alarm',
          text: 'The driver’s profiling library did not see all that it was to see: see the tables below.',
        })
      : null,
    ...head.left_out.map((text) => make('p', { class: 'alarm', text })),
  ]);
}

/** Quiet when all is there, loud when not. */
function completenessElement({ completeness, completeness_text: text }) {
  if (completeness.complete) return make('p', { class: 'whole', id: 'whole', text: sentence(text) });
  const reasons = [
    completeness.truncated && 'the recording was cut off before its counts',
    completeness.limit_reached && completeness.keep === 'first' && 'its file was full',
    ...['missing', 'dropped', 'invalid', 'surplus', 'orphans'].map(
      (key) => completeness[key] && `${count(completeness[key])} ${key}`,
    ),
  ].filter(Boolean);
  return make(
    'div',
    { class: 'alarm loud', id: 'whole', role: 'alert' },
    make('strong', { text: sentence(text) }),
    make('span', {
      text: ` Everything below is of what is there. ${reasons.length ? sentence(reasons.join(', ')) : ''}`,
    }),
  );
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;
const signed = (ratio) => `${ratio >= 1 ? '+' : '−'}${Math.abs(100 * (ratio - 1)).toFixed(2)} %`;
const oneLine = (text) => text.replace(/\p{Cc}+/gu, ' ').slice(0, 200);

function fact(name, value, detail) {
  return [
    make(
      'div',
      {},
      make('dt', { text: name }),
      make('dd', { text: value, title: value }),
      detail ? make('dd', { class: 'note', text: detail }) : null,
    ),
  ];
}

function drawTables({ head }) {
  const sheets = [
    ['completeness', 'Node times, graph by graph'],
    ['cuda_gpu_kern_sum', 'Time by kernel'],
    ['step_sum', 'Steps by the graphs that they replayed'],
  ];
  for (const [name, title] of sheets) {
    const rows = head.tables[name];
    if (!rows.length) continue;
    const columns = Object.keys(rows[0]).map((key) => ({
      title: key,
      words: rows.some((row) => typeof row[key] === 'string'),
      value: (row) => row[key],
      text: (row) => (typeof row[key] === 'number' ? digits(row[key]) : (row[key] ?? '–')),
    }));
    byId('tables-view').append(
      make(
        'details',
        { open: true },
        make('summary', { text: title }),
        makeTable({ columns, rows, sortBy: null, caption: title }),
      ),
    );
  }
  show('tables', 'Tables');
}
