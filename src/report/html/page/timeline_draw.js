// Draws the timeline: each frame from the typed arrays; what is narrower than a pixel is added up.

function requestDraw(view) {
  view.frame ||= requestAnimationFrame(() => {
    view.frame = 0;
    drawView(view);
  });
}

function drawView(view) {
  const { canvas, lanes } = view;
  const ratio = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, view.height];
  if (!width) return;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = '11px system-ui, sans-serif';
  context.textBaseline = 'middle';
  const pixels = width / (view.to - view.from);
  drawRuler(context, view, width, height, pixels);
  for (const lane of lanes) {
    if (lane.rows > 1) drawRows(context, view, lane, width, pixels);
    else drawLane(context, view, lane, width, pixels);
    laneName(context, lane);
  }
  outline(context, view, view.hovered, pixels, 1);
  outline(context, view, view.selected, pixels, 2);
}

/** The latest end up to each slice, so that the first slice that reaches into the view is found by halving. */
function runningMaximum(ends) {
  let latest = -Infinity;
  return Float64Array.from(ends, (end) => (latest = Math.max(latest, end)));
}

function drawRuler(context, view, width, height, pixels) {
  const about = 110 / pixels;
  const power = 10 ** Math.floor(Math.log10(about));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= about);
  context.fillStyle = colour('line');
  const marks = [];
  for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) marks.push(at);
  marks.forEach((at) => context.fillRect((at - view.from) * pixels, 0, 1, height));
  context.fillStyle = colour('muted');
  marks.forEach((at) => context.fillText(moment(at, step), (at - view.from) * pixels + 4, RULER_HEIGHT / 2));
}

/** A mark's time, in a unit that goes with it and as exact as the marks are far apart. */
function moment(at, step) {
  const [scale, unit] = at < 1e6 ? [1e3, 'µs'] : at < 1e9 ? [1e6, 'ms'] : [1e9, 's'];
  return `${(at / scale).toFixed(Math.max(0, Math.ceil(-Math.log10(step / scale))))} ${unit}`;
}

/** Slices of one row. What is narrower than a pixel is added up: a pixel has the colour that fills most of it. */
function drawLane(context, view, lane, width, pixels) {
  const { start, end, colours, pick } = lane;
  const filled = new Float64Array(colours.length);
  const dim = view.matches && lane.place ? view.matches : null;
  let column = -1;
  const flush = () => {
    if (column < 0) return;
    let [largest, sum] = [0, 0];
    for (let at = 0; at < filled.length; at++) {
      sum += filled[at];
      if (filled[at] > filled[largest]) largest = at;
    }
    context.globalAlpha = Math.min(1, Math.max(0.08, sum));
    if (sum > 0) {
      context.fillStyle = colours[largest];
      context.fillRect(column, lane.y, 1, lane.height);
    }
    filled.fill(0);
  };
  for (let at = lowerBound(lane.latestEnd, view.from); at < lane.count && start[at] < view.to; at++) {
    const [left, right] = [(start[at] - view.from) * pixels, (end[at] - view.from) * pixels];
    if (dim && !dim[lane.place[at]]) continue;
    if (right - left < 1) {
      const pixel = Math.max(0, Math.floor(left));
      if (pixel !== column) {
        flush();
        column = pixel;
      }
      filled[pick(at)] += right - left;
      continue;
    }
    context.globalAlpha = 1;
    context.fillStyle = colours[pick(at)];
    // A hair of the ground between slices that are wide enough for it.
    const [x, behind] = [Math.max(-1, left), Math.min(width + 1, right)];
    context.fillRect(x, lane.y, Math.max(1, behind - x - (right - left > 4 ? 1 : 0)), lane.height);
    if (behind - x > LABEL_PX) label(context, lane, at, Math.max(0, x), behind, lane.y, lane.height);
  }
  flush();
  context.globalAlpha = 1;
}

function drawRows(context, view, lane, width, pixels) {
  const rowHeight = lane.height / lane.rows;
  for (let at = lowerBound(lane.latestEnd, view.from); at < lane.count && lane.start[at] < view.to; at++) {
    const left = Math.max(-1, (lane.start[at] - view.from) * pixels);
    const right = Math.min(width + 1, (lane.end[at] - view.from) * pixels);
    if (right < 0) continue;
    const y = lane.y + lane.row[at] * rowHeight;
    context.fillStyle = lane.colours[lane.pick(at)];
    context.fillRect(left, y, Math.max(1, right - left), Math.max(1, rowHeight - 1));
    if (rowHeight > 11 && right - left > LABEL_PX)
      label(context, lane, at, Math.max(0, left), right, y, rowHeight - 1);
  }
}

function label(context, lane, at, left, right, y, height) {
  const text = lane.label(at);
  const room = right - left - 8;
  if (context.measureText(text).width > room) return;
  context.fillStyle = colour('on-slice');
  context.fillText(text, left + 4, y + height / 2 + 0.5);
}

function laneName(context, lane) {
  context.fillStyle = colour('muted');
  context.fillText(lane.name, 4, lane.y - NAME_HEIGHT / 2);
}

function outline(context, view, slice, pixels, width) {
  if (!slice) return;
  const { lane, at } = slice;
  const rowHeight = lane.height / lane.rows;
  const [left, right] = [(lane.start[at] - view.from) * pixels, (lane.end[at] - view.from) * pixels];
  context.strokeStyle = colour('ink');
  context.lineWidth = width;
  context.strokeRect(left, lane.y + (lane.row ? lane.row[at] * rowHeight : 0), Math.max(2, right - left), rowHeight);
}
