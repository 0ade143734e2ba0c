// Requests: a table with a line for each life; the chosen one's steps below.

function drawRequests(run) {
  const rows = requestsOf(run);
  if (!rows.length) return;
  show('requests', 'Requests');
  const span = run.head.window.ns || 1;
  const time = (title, key, tip) => ({ title, tip, value: (row) => row[key], text: (row) => duration(row[key]) });
  const tokens = (title, key, tip) => ({
    title,
    tip,
    value: (row) => row[key],
    text: (row) => (row[key] === null ? '–' : count(row[key])),
  });
  const name = {
    title: 'Name',
    words: true,
    value: (row) => row.name,
    cell: (row) => make('span', { class: 'name', title: row.name, text: row.name }),
    tip: 'What its client calls it: X-Request-Id',
  };
  const columns = [
    {
      title: 'Request',
      value: (row) => row.id,
      cell: (row) => make('button', { type: 'button', class: 'link', text: row.id }),
    },
    ...(rows.some((row) => row.name) ? [name] : []),
    {
      title: 'Life',
      words: true,
      value: (row) => row.start,
      cell: (row) => lifeElement(row, span),
      tip: 'Within the recording’s window',
    },
    tokens('Prompt', 'prompt', 'Tokens of the prompt, known where the recording saw it arrive'),
    tokens('Answer', 'answer', 'Tokens of the answer, known at its end'),
    time('Queued', 'queued', 'From its arrival to its first step'),
    time('Prefill', 'prefill', 'From its first step to its first token'),
    time('Decode', 'decode', 'From its first token on'),
    time('In all', 'ns', 'Within the recording'),
    { title: 'Steps', value: (row) => row.members.length, text: (row) => count(row.members.length) },
    { title: 'End', words: true, value: (row) => row.end, text: (row) => row.end },
  ];
  byId('requests-table').append(
    make(
      'ul',
      { class: 'legend' },
      ...run.head.stretches.map((name) => make('li', {}, make('i', { class: `part stretch-${name}` }), name)),
    ),
    makeTable({
      columns,
      rows,
      sortBy: columns.findIndex(({ title }) => title === 'Life'),
      descending: false,
      caption: 'Requests',
      filterHint: 'Filter: number, name, finished …',
      filterText: (row) => `request ${row.id} ${row.name} ${row.end}`,
      onChoose: (row) => drawRequest(run, row),
    }),
  );
}

function requestsOf(run) {
  if (run.requests) return run.requests;
  const [ids, starts, durations, prompts, answers, ends, counts] = [
    'id',
    'start',
    'ns',
    'prompt_plus_1',
    'answer_plus_1',
    'end',
    'stretches',
  ].map((name) => run.column(`request.${name}`));
  const [kinds, from, lengths] = ['kind', 'start', 'ns'].map((name) => run.column(`stretch.${name}`));
  const members = membersByRequest(run);
  let at = 0;
  return (run.requests = Array.from(ids, (id, index) => {
    const stretches = Array.from({ length: counts[index] }, () => {
      const stretch = { name: run.head.stretches[kinds[at]], start: from[at], ns: lengths[at] };
      at++;
      return stretch;
    });
    const sum = (name) => {
      const of = stretches.filter((stretch) => stretch.name === name);
      return of.length ? of.reduce((total, { ns }) => total + ns, 0) : null;
    };
    return {
      id,
      name: run.head.request_names[id] ?? '',
      start: starts[index],
      ns: durations[index],
      prompt: prompts[index] ? prompts[index] - 1 : null,
      answer: answers[index] ? answers[index] - 1 : null,
      end: run.head.ends[ends[index]],
      stretches,
      members: members.get(id) ?? [],
      queued: sum('queued'),
      prefill: sum('prefill'),
      decode: sum('decode'),
    };
  }));
}

function lifeElement(row, span) {
  const share = (ns) => `${((100 * ns) / span).toFixed(3)}%`;
  const text = row.stretches.map(({ name, ns }) => `${name} ${duration(ns)}`).join(', ');
  return make(
    'div',
    { class: 'life', role: 'img', 'aria-label': text, title: text },
    ...row.stretches.map(({ name, start, ns }) =>
      make('span', { class: `part stretch-${name}`, style: `left:${share(start)};width:${share(ns)}` }),
    ),
  );
}

/** What the chosen request's steps did; a step's time is shared by its batch. */
function drawRequest(run, row) {
  const [stepOf, rowsOf, promptsOf] = ['member.step', 'member.rows', 'member.prompt_rows'].map(run.column);
  const [numbers, walls, nodeTimes, rows, seqs] = ['number', 'wall_ns', 'node_ns', 'rows', 'seqs'].map((name) =>
    run.column(`step.${name}`),
  );
  const steps = row.members.map((member) => {
    const step = stepOf[member];
    return {
      step,
      number: numbers[step],
      own: rowsOf[member],
      prompt: promptsOf[member],
      rows: rows[step],
      seqs: seqs[step],
      wall: walls[step] || null,
      nodes: nodeTimes[step],
      share: rows[step] ? (nodeTimes[step] * rowsOf[member]) / rows[step] : 0,
    };
  });
  const sum = (key) => steps.reduce((total, step) => total + (step[key] ?? 0), 0);
  const withPrompt = steps.filter((step) => step.prompt).length;
  const detail = byId('request-detail');
  detail.replaceChildren(make('h3', { text: row.name ? `Request ${row.id} · ${row.name}` : `Request ${row.id}` }));
  if (!steps.length) {
    detail.append(make('p', { text: 'The page holds no step of it.' }));
    return;
  }
  detail.append(
    make('p', {
      text:
        `${counted(steps.length, 'step')}, ${count(withPrompt)} with rows of its prompt. ` +
        `Node time of its steps: ${duration(sum('nodes'))}, which it shares with ` +
        `${digits(sum('seqs') / steps.length - 1)} other sequences on average. ` +
        `By its share of the rows: ${duration(sum('share'))}.`,
    }),
    makeTable({
      caption: `Steps of request ${row.id}`,
      rows: steps,
      sortBy: 0,
      descending: false,
      columns: [
        {
          title: 'Step',
          value: (step) => step.number,
          tip: 'Shows it in the timeline',
          cell: (step) =>
            make('button', {
              type: 'button',
              class: 'link',
              text: count(step.number),
              onclick: () => showStepInTimeline(step.step),
            }),
        },
        { title: 'Own rows', value: (step) => step.own, text: (step) => count(step.own) },
        { title: 'of the prompt', value: (step) => step.prompt, text: (step) => count(step.prompt) },
        { title: 'All rows', value: (step) => step.rows, text: (step) => count(step.rows) },
        { title: 'Sequences', value: (step) => step.seqs, text: (step) => count(step.seqs) },
        { title: 'Step time', value: (step) => step.wall, text: (step) => duration(step.wall) },
        { title: 'Node time', value: (step) => step.nodes, text: (step) => duration(step.nodes) },
      ],
    }),
  );
}
