// The roofline: achieved arithmetic over arithmetic per byte, both logarithmic, below what the device can.

const DOTS_SHOWN = 2000;

function drawRoofline({ head }) {
  const { peaks } = head;
  const places = head.places.filter((place) => place.bytes > 0 && place.flops > 0 && place.costed_ns > 0);
  if (!peaks || !(peaks.memory_gb_s > 0) || !places.length) return;
  show('roofline', 'Roofline');
  const dots = [
    ...merged(places, head.ops),
    ...places.slice(0, DOTS_SHOWN).map((place) => dotOf(place, placeName(place), 3)),
  ];
  const redraw = () => byId('roofline-plot').replaceChildren(plot(dots, peaks, head.device.kind));
  whenThemed(redraw);
  addEventListener('resize', redraw);
  if (places.length > DOTS_SHOWN) {
    byId('roofline-plot').after(
      make('p', {
        class: 'alarm',
        text:
          `The plot shows the first ${count(DOTS_SHOWN)} of ${count(places.length)} places, and all ops; ` +
          'the table below has all places.',
      }),
    );
  }
  const left = head.places.length - places.length;
  byId('roofline-readout').textContent = left
    ? `Not drawn: ${counted(left, 'place')} without arithmetic, or whose steps’ sizes are not known.`
    : 'Move over a dot for its numbers.';
}

function dotOf(place, name, radius) {
  return {
    name,
    op: place.op,
    radius,
    intensity: place.flops / place.bytes,
    gflops: place.flops / place.costed_ns,
    gbs: place.bytes / place.costed_ns,
    above: place.above_roof_ns,
  };
}

/** One dot for each op. */
function merged(places, ops) {
  const sum = (of, key) => of.reduce((total, place) => total + place[key], 0);
  return ops
    .map((op) => places.filter((place) => place.op === op))
    .filter((of) => of.length)
    .map((of) => {
      const whole = Object.fromEntries(
        ['bytes', 'flops', 'costed_ns', 'above_roof_ns'].map((key) => [key, sum(of, key)]),
      );
      return dotOf({ ...whole, op: of[0].op }, `all ${of[0].op}`, 8);
    });
}

function plot(dots, peaks, kind) {
  const width = Math.max(280, byId('roofline-plot').clientWidth);
  const height = Math.min(420, Math.max(260, width * 0.5));
  const [left, right, top, bottom] = [64, 16, 14, 44];
  const float = [kind === 'cuda' ? 'bf16 products' : 'float', peaks.float_gflop_s];
  const flats = [float, ['int8', peaks.int8_gop_s]].filter(([, peak]) => peak > 0);
  const slopes = [
    ['memory', peaks.memory_gb_s],
    ['cache', peaks.cache_gb_s],
  ].filter(([, peak]) => peak > 0);
  const ceiling = Math.max(...flats.map(([, peak]) => peak), ...dots.map((dot) => dot.gflops));
  const bend = ceiling / peaks.memory_gb_s;
  const xs = [...dots.map((dot) => dot.intensity), bend];
  const [xMin, xMax] = [Math.min(...xs) / 2, Math.max(...xs) * 4];
  const [yMin, yMax] = [Math.min(...dots.map((dot) => dot.gflops), xMin * peaks.memory_gb_s * 4) / 2, ceiling * 2];
  const scale = (value, low, high) => Math.log(value / low) / Math.log(high / low);
  const x = (value) => left + scale(value, xMin, xMax) * (width - left - right);
  const y = (value) => height - bottom - scale(value, yMin, yMax) * (height - top - bottom);
  const svg = draw('svg', {
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    role: 'group',
    'aria-label': 'Roofline plot',
  });
  for (const mark of decades(xMin, xMax)) svg.append(...tick(x(mark), height - bottom, mark, 'x', top));
  for (const mark of decades(yMin, yMax)) svg.append(...tick(left, y(mark), mark, 'y', width - right));
  svg.append(
    draw('text', {
      x: (left + width - right) / 2,
      y: height - 8,
      class: 'axis',
      'text-anchor': 'middle',
      text: 'operations per byte',
    }),
    draw('text', {
      x: 14,
      y: height / 2,
      class: 'axis',
      'text-anchor': 'middle',
      transform: `rotate(-90 14 ${height / 2})`,
      text: 'GFLOP/s',
    }),
  );
  const area = { x, y, xMin, xMax, yMin, yMax };
  slopes.forEach(([name, peak]) => svg.append(...slope(name, peak, ceilingOf(flats), area)));
  flats.forEach(([name, peak]) => svg.append(...flat(name, peak, slopes, area)));
  // Small dots below large ones.
  [...dots]
    .sort((a, b) => a.radius - b.radius)
    .forEach((dot) => svg.append(dotElement(dot, x(dot.intensity), y(dot.gflops))));
  return svg;
}

const ceilingOf = (flats) => Math.max(...flats.map(([, peak]) => peak), 0) || Infinity;

function decades(low, high) {
  const first = Math.ceil(Math.log10(low));
  return Array.from({ length: Math.max(0, Math.floor(Math.log10(high)) - first + 1) }, (_, at) => 10 ** (first + at));
}

function tick(x, y, value, axis, end) {
  const label = value >= 1e5 || value < 1e-2 ? value.toExponential(0) : String(Number(value.toPrecision(1)));
  return axis === 'x'
    ? [
        draw('line', { x1: x, x2: x, y1: y, y2: end, class: 'grid' }),
        draw('text', { x, y: y + 16, class: 'axis', 'text-anchor': 'middle', text: label }),
      ]
    : [
        draw('line', { x1: x, x2: end, y1: y, y2: y, class: 'grid' }),
        draw('text', { x: x - 6, y: y + 4, class: 'axis', 'text-anchor': 'end', text: label }),
      ];
}

/** Up to where arithmetic bounds. */
function slope(name, peak, ceiling, { x, y, xMin, xMax, yMin }) {
  const [from, to] = [Math.max(xMin, yMin / peak), Math.min(xMax, ceiling / peak)];
  if (!(from < to)) return [];
  const [x1, y1, x2, y2] = [x(from), y(from * peak), x(to), y(to * peak)];
  const angle = (Math.atan2(y2 - y1, x2 - x1) * 180) / Math.PI;
  // The cache's name above its line, the memory's below: the two may be one.
  const [at, beside] = name === 'cache' ? [x1 + 8, -6] : [x1 + 24, 15];
  const onLine = y1 + ((at - x1) * (y2 - y1)) / (x2 - x1);
  return [
    draw('line', { x1, y1, x2, y2, class: 'roof' }),
    draw('text', {
      x: at,
      y: onLine + beside,
      class: 'axis',
      transform: `rotate(${angle} ${at} ${onLine})`,
      text: `${name} ${digits(peak)} GB/s`,
    }),
  ];
}

function flat(name, peak, slopes, { x, y, xMin, xMax }) {
  const from = Math.max(xMin, peak / Math.max(...slopes.map(([, gbs]) => gbs)));
  if (!(from < xMax)) return [];
  return [
    draw('line', { x1: x(from), y1: y(peak), x2: x(xMax), y2: y(peak), class: 'roof' }),
    draw('text', {
      x: x(xMax) - 4,
      y: y(peak) - 6,
      class: 'axis',
      'text-anchor': 'end',
      text: `${name} ${digits(peak)} GFLOP/s`,
    }),
  ];
}

function dotElement(dot, x, y) {
  const above = dot.above === null ? '' : `, ${duration(dot.above)} above the roof in all`;
  const text =
    `${dot.name}: ${digits(dot.gflops)} GFLOP/s at ${digits(dot.intensity)} operations per byte, ` +
    `${digits(dot.gbs)} GB/s${above}`;
  const say = () => {
    byId('roofline-readout').textContent = `${text}.`;
  };
  const large = dot.radius > 4;
  return draw(
    'circle',
    {
      cx: x,
      cy: y,
      r: dot.radius,
      class: large ? 'dot large' : 'dot',
      fill: opColour(dot.op),
      tabindex: large ? 0 : null,
      'aria-label': large ? text : null,
      onmouseenter: say,
      onfocus: say,
    },
    draw('title', { text }),
  );
}
