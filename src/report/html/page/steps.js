// Step time over the run, and the batch beside it: two charts with one time axis.

function drawSteps(run) {
  const [starts, walls, rows, prompts, seqs, numbers] = [
    'step.start',
    'step.wall_ns',
    'step.rows',
    'step.prompt_rows',
    'step.seqs',
    'step.number',
  ].map(run.column);
  if (!starts.length) return;
  show('steps', 'Steps');
  const seconds = Array.from(starts, (ns) => ns / 1e9);
  // A step without an account has no time.
  const timeOf = (isPrompt) =>
    Array.from(walls, (ns, at) => (ns > 0 && prompts[at] > 0 === isPrompt ? ns / 1e6 : null));
  const times = [seconds, timeOf(false), timeOf(true)];
  const batch = [seconds, Array.from(rows), Array.from(seqs)];
  const charts = [];
  whenThemed(() => {
    charts.splice(0).forEach((chart) => chart.destroy());
    charts.push(timeChart(times, isWide(walls)), batchChart(batch));
    listenForStep(charts[0]);
  });
  addEventListener('resize', () => charts.forEach((chart) => chart.setSize(chartSize(chart))));
  const without = walls.filter((ns) => ns === 0).length;
  byId('steps-note').textContent = [
    `Steps ${count(numbers[0])} to ${count(numbers[numbers.length - 1])}.`,
    'A step’s time is from the end of the device’s work on the step before to the end of its own.',
    without
      ? `${counted(without, 'step')} without an account (see below) ${without === 1 ? 'has' : 'have'} no dot.`
      : '',
  ].join(' ');
}

/** A click, unlike a drag, goes to the step in the timeline. */
function listenForStep(chart) {
  let pressedAt = 0;
  chart.over.addEventListener('mousedown', (event) => {
    pressedAt = event.clientX;
  });
  chart.over.addEventListener('click', (event) => {
    const at = chart.cursor.idx;
    if (Number.isInteger(at) && Math.abs(event.clientX - pressedAt) < 4) showStepInTimeline(at);
  });
}

/** Whether step times differ so much that a linear axis would hide most of them. */
function isWide(walls) {
  const known = walls.filter((ns) => ns > 0).sort();
  return known.length > 1 && known[known.length - 1] > 8 * known[known.length >> 1];
}

function chartSize(chart) {
  const box = chart.root.parentElement;
  return { width: Math.max(200, box.clientWidth), height: chart.height };
}

function options(id, height, series, scales, axis) {
  const [ink, line] = [colour('muted'), colour('line')];
  const axisStyle = {
    stroke: ink,
    grid: { stroke: line, width: 1 },
    ticks: { stroke: line, width: 1 },
    font: '12px system-ui',
  };
  return {
    width: Math.max(200, byId(id).clientWidth),
    height,
    series: [{ label: 'at', value: (_, value) => (value === null ? '–' : duration(value * 1e9)) }, ...series],
    scales: { x: { time: false }, ...scales },
    axes: [
      { ...axisStyle, values: (_, marks) => marks.map((mark) => duration(mark * 1e9)) },
      { ...axisStyle, size: 62, ...axis },
    ],
    cursor: { sync: { key: 'steps', setSeries: false }, points: { size: 9 }, drag: { x: true, y: false } },
    legend: { live: true },
  };
}

function timeChart(data, logarithmic) {
  const dots = (label, stroke) => ({
    label,
    stroke,
    paths: () => null,
    points: { show: true, size: data[0].length > 5000 ? 3 : 6, fill: stroke, width: 0 },
    value: (_, value) => (value === null ? '–' : duration(value * 1e6)),
  });
  const series = [dots('decode rows only', colour('op-attn-qkv')), dots('with prompt rows', colour('op-mlp-up'))];
  const scale = logarithmic ? { distr: 3, log: 10 } : { range: (_, low, high) => [0, high * 1.08 || 1] };
  const axis = {
    values: (_, marks) => marks.map((mark) => (mark === null ? '' : duration(mark * 1e6))),
    label: logarithmic ? 'step time (log)' : 'step time',
    labelFont: '12px system-ui',
    labelSize: 18,
    labelGap: 2,
    size: 72,
  };
  return new uPlot(options('steps-time', 260, series, { y: scale }, axis), data, byId('steps-time'));
}

function batchChart(data) {
  const stepped = uPlot.paths.stepped({ align: 1 });
  const line = (label, stroke, fill) => ({
    label,
    stroke,
    fill,
    width: 1.5,
    paths: stepped,
    points: { show: false },
    value: (_, value) => (value === null ? '–' : count(value)),
  });
  const series = [
    line('rows', colour('op-attn-core'), `${colour('op-attn-core')}22`),
    line('sequences', colour('op-lm-head')),
  ];
  const axis = { label: 'in the step', labelFont: '12px system-ui', labelSize: 18, labelGap: 2, size: 72 };
  const scale = { range: (_, low, high) => [0, high * 1.1 || 1] };
  return new uPlot(options('steps-batch', 170, series, { y: scale }, axis), data, byId('steps-batch'));
}
