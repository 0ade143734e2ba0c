// The timeline's lanes: slices by begin in typed arrays, with a colour and a text of each.

function makeLanes(run) {
  const nodes = nodesOf(run);
  const { head } = run;
  const opOf = Uint8Array.from(head.places, (place) => run.opIndex.get(place.op));
  const [stepOf, graphOf] = [run.column('replay.step'), run.column('replay.graph')];
  const nodeText = (at) => {
    const overlap = nodes.overlap[at] ? `, ${duration(nodes.overlap[at])} of it beside an earlier node` : '';
    return (
      `${run.placeNames[nodes.place[at]]} (${head.kernels[nodes.kernel[at]]}), ` +
      `${duration(nodes.end[at] - nodes.start[at])}${overlap}, ` +
      `step ${count(stepOf[nodes.replay[at]])}, ${head.graphs[graphOf[nodes.replay[at]]].name}`
    );
  };
  const [spanStart, spanNs, phases, spanSteps] = ['start', 'ns', 'phase', 'step'].map((name) =>
    run.column(`span.${name}`),
  );
  const [steps, layers] = ['step', 'layer'].map((what) => rangesOf(run, what));
  const plain = { rows: 1, row: null };
  const lanes = [
    {
      ...plain,
      name: 'steps',
      ...steps,
      palette: () => [colour('step-a'), colour('step-b')],
      pick: (at) => at % 2,
      label: (at) => `step ${count(steps.number[at])}`,
      text: (at) =>
        `step ${count(steps.number[at])}: ${duration(steps.end[at] - steps.start[at])} from its first node to its last`,
    },
    {
      ...plain,
      name: 'layers',
      ...layers,
      palette: () => [colour('layer-a'), colour('layer-b')],
      pick: (at) => layers.number[at] % 2,
      label: (at) => `layer ${layers.number[at]}`,
      text: (at) => `layer ${layers.number[at]}: ${duration(layers.end[at] - layers.start[at])}`,
    },
    {
      ...plain,
      name: 'nodes',
      count: nodes.count,
      start: nodes.start,
      end: nodes.end,
      place: nodes.place,
      palette: () => head.ops.map(opColour),
      pick: (at) => opOf[nodes.place[at]],
      label: (at) => head.places[nodes.place[at]].op,
      text: nodeText,
    },
    {
      ...plain,
      name: 'engine',
      count: spanStart.length,
      start: spanStart,
      end: spanStart.map((ns, at) => ns + spanNs[at]),
      palette: () => head.phases.map((phase) => colour(`phase-${phase}`)),
      pick: (at) => phases[at],
      label: (at) => head.phases[phases[at]],
      text: (at) => `engine: ${head.phases[phases[at]]}, ${duration(spanNs[at])}, for step ${count(spanSteps[at])}`,
    },
    { name: 'requests', ...requestLane(run) },
  ].filter((lane) => lane.count > 0);
  let y = RULER_HEIGHT;
  for (const lane of lanes) {
    lane.latestEnd = runningMaximum(lane.end);
    lane.y = y + NAME_HEIGHT;
    lane.height = lane.rows > 1 ? Math.min(REQUESTS_HEIGHT, lane.rows * 16) : LANE_HEIGHT;
    y = lane.y + lane.height + 3;
  }
  return lanes;
}

/** Steps or layers of the device, from their first node to their last. */
function rangesOf(run, what) {
  const [number, start, ns] = [what, 'start', 'ns'].map((name) => run.column(`${what}_range.${name}`));
  return { count: start.length, number, start, end: start.map((at, index) => at + ns[index]) };
}

/** Requests, each on the first row that is free. */
function requestLane(run) {
  const slices = [];
  const free = [];
  for (const { id, start, ns, stretches } of requestsOf(run)) {
    let row = free.findIndex((end) => end <= start);
    if (row < 0) row = free.length;
    free[row] = start + ns;
    slices.push(...stretches.map((stretch) => ({ ...stretch, id, row })));
  }
  slices.sort((a, b) => a.start - b.start);
  const kinds = slices.map(({ name }) => run.head.stretches.indexOf(name));
  return {
    count: slices.length,
    rows: free.length,
    start: Float64Array.from(slices, ({ start }) => start),
    end: Float64Array.from(slices, ({ start, ns }) => start + ns),
    row: slices.map(({ row }) => row),
    palette: () => run.head.stretches.map((name) => colour(`stretch-${name}`)),
    pick: (at) => kinds[at],
    label: (at) => `${slices[at].id} ${slices[at].name}`,
    text: (at) => `request ${slices[at].id}: ${slices[at].name}, ${duration(slices[at].ns)}`,
  };
}
