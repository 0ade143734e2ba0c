// Where steps' wall time goes: a stacked bar for each kind of step, and the same as a table.

function drawAccount({ head }) {
  if (!head.bars.length) return;
  show('account', 'Account');
  const names = [...new Set(head.bars.flatMap((bar) => bar.parts.map((part) => part.name)))];
  // Nodes first, by the size of their part of all steps; then what is not computing.
  const order = { node: 0, copy: 1, gap: 2, host: 3, unattributed: 4 };
  const kinds = new Map(head.bars.flatMap((bar) => bar.parts.map((part) => [part.name, part.kind])));
  const nsOf = (bar, name) => bar.parts.find((part) => part.name === name)?.ns ?? 0;
  names.sort((a, b) => order[kinds.get(a)] - order[kinds.get(b)] || nsOf(head.bars[0], b) - nsOf(head.bars[0], a));
  byId('account-bars').append(
    ...head.bars.map((bar) => barElement(bar, names, nsOf)),
    partsTable(head.bars, names, kinds, nsOf),
  );
  const { untraced, after_untraced: behind, after_left_out: apart, incomplete } = head.unaccounted;
  byId('account-note').textContent =
    untraced + behind + apart + incomplete === 0
      ? `All ${counted(head.bars[0].steps, 'step')} are accounted for.`
      : `${counted(head.bars[0].steps, 'step')} accounted for. Without an account: ${count(untraced)} not recorded, ` +
        `${count(behind)} behind such a step, ${count(apart)} behind one that was left out, ` +
        `${count(incomplete)} with node times missing.`;
}

const partClass = (name, kind) => `part ${kind === 'node' ? opClass(name) : kind}`;

function barElement(bar, names, nsOf) {
  const segments = names
    .filter((name) => nsOf(bar, name) > 0)
    .map((name) => {
      const { kind } = bar.parts.find((part) => part.name === name);
      const share = (100 * nsOf(bar, name)) / bar.wall_ns;
      const text = `${name}: ${percent(share)}, ${duration(nsOf(bar, name) / bar.steps)} a step`;
      return make(
        'span',
        { class: partClass(name, kind), style: `flex-grow:${share}`, title: text },
        share > 7 ? make('span', { text: name }) : null,
      );
    });
  const label = `${bar.name}: ${segments.map((segment) => segment.title).join('; ')}`;
  return make(
    'div',
    { class: 'bar-row' },
    make(
      'div',
      { class: 'bar-name' },
      make('strong', { text: bar.name }),
      make('span', {
        class: 'note',
        text: `${counted(bar.steps, 'step')}, ${duration(bar.wall_ns / bar.steps)} each`,
      }),
    ),
    make('div', { class: 'stack', role: 'img', 'aria-label': label }, ...segments),
  );
}

function partsTable(bars, names, kinds, nsOf) {
  const cells = (bar, name) => {
    const ns = nsOf(bar, name);
    return [
      make('td', { text: ns ? percent((100 * ns) / bar.wall_ns) : '' }),
      make('td', { text: ns ? duration(ns / bar.steps) : '' }),
    ];
  };
  const rows = names.map((name) =>
    make(
      'tr',
      {},
      make(
        'th',
        { scope: 'row', class: 'words' },
        make('i', { class: partClass(name, kinds.get(name)) }),
        make('span', { text: name }),
      ),
      ...bars.flatMap((bar) => cells(bar, name)),
    ),
  );
  return make(
    'div',
    { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Parts of step time' },
    make(
      'table',
      { class: 'parts' },
      make('caption', { text: 'Parts of step time: share, and mean of a step' }),
      make(
        'thead',
        {},
        make(
          'tr',
          {},
          make('th', { scope: 'col', class: 'words', text: 'part' }),
          ...bars.map((bar) => make('th', { scope: 'col', colspan: 2, text: bar.name })),
        ),
      ),
      make('tbody', {}, ...rows),
    ),
  );
}
