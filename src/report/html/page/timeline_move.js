// Moves the timeline: zoom, pan, what is under the pointer, keys.

function setView(view, from, to) {
  const size = Math.min(view.end, Math.max(VIEW_MIN_NS, to - from));
  view.from = Math.min(Math.max(0, from), view.end - size);
  view.to = view.from + size;
  requestDraw(view);
}

/** Zooms around a moment. */
function zoom(view, factor, at = (view.from + view.to) / 2) {
  const size = Math.min(view.end, Math.max(VIEW_MIN_NS, (view.to - view.from) * factor));
  const part = (at - view.from) / (view.to - view.from);
  setView(view, at - part * size, at - part * size + size);
}

const pan = (view, part) =>
  setView(view, view.from + part * (view.to - view.from), view.to + part * (view.to - view.from));
const momentAt = (view, x) => view.from + (x / view.canvas.clientWidth) * (view.to - view.from);

function sliceAt(view, x, y) {
  const lane = view.lanes.find((of) => y >= of.y && y < of.y + of.height);
  if (!lane) return null;
  const moment = momentAt(view, x);
  const row = lane.row ? Math.floor((y - lane.y) / (lane.height / lane.rows)) : null;
  // Half a pixel beside a slice is on it.
  const slack = (view.to - view.from) / view.canvas.clientWidth / 2;
  let found = null;
  for (
    let at = lowerBound(lane.latestEnd, moment - slack);
    at < lane.count && lane.start[at] <= moment + slack;
    at++
  ) {
    if (lane.end[at] >= moment - slack && (row === null || lane.row[at] === row)) {
      found = { lane, at };
      if (lane.start[at] <= moment && lane.end[at] >= moment) break;
    }
  }
  return found;
}

function tell(view, slice) {
  const part = `Shown: ${duration(view.to - view.from)} of ${duration(view.end)}.`;
  view.readout.textContent = slice
    ? `${slice.lane.text(slice.at)}; at ${moment(slice.lane.start[slice.at], 1e3)}.`
    : part;
}

function select(view, slice) {
  view.selected = slice;
  tell(view, slice);
  requestDraw(view);
}

function listen(view) {
  const { canvas } = view;
  const pointers = new Map();
  let moved = false;
  canvas.addEventListener(
    'wheel',
    (event) => {
      // The page scrolls past, until someone is in the timeline.
      if (document.activeElement !== canvas && !event.ctrlKey) return;
      event.preventDefault();
      if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan(view, event.deltaX / canvas.clientWidth);
      else zoom(view, Math.exp(event.deltaY / 400), momentAt(view, event.offsetX));
    },
    { passive: false },
  );
  canvas.addEventListener('pointerdown', (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event.offsetX);
    moved = false;
  });
  canvas.addEventListener('pointermove', (event) => {
    if (!pointers.has(event.pointerId)) {
      view.hovered = sliceAt(view, event.offsetX, event.offsetY);
      tell(view, view.hovered ?? view.selected);
      requestDraw(view);
      return;
    }
    const before = [...pointers.values()];
    moved ||= Math.abs(event.offsetX - pointers.get(event.pointerId)) > 2;
    if (!moved) return;
    pointers.set(event.pointerId, event.offsetX);
    const now = [...pointers.values()];
    if (now.length === 1) pan(view, (before[0] - now[0]) / canvas.clientWidth);
    else
      zoom(
        view,
        Math.abs(before[0] - before[1]) / Math.max(1, Math.abs(now[0] - now[1])),
        momentAt(view, (now[0] + now[1]) / 2),
      );
  });
  const release = (event) => {
    pointers.delete(event.pointerId);
    if (event.type === 'pointerup' && !moved) select(view, sliceAt(view, event.offsetX, event.offsetY));
  };
  canvas.addEventListener('pointerup', release);
  canvas.addEventListener('pointercancel', release);
  canvas.addEventListener('dblclick', (event) => zoom(view, 0.25, momentAt(view, event.offsetX)));
  canvas.addEventListener('pointerleave', () => {
    view.hovered = null;
    requestDraw(view);
  });
  canvas.addEventListener('keydown', (event) => moveByKey(view, event));
}

function moveByKey(view, event) {
  const fast = event.shiftKey ? 5 : 1;
  const action = {
    ArrowLeft: () => pan(view, -0.1 * fast),
    ArrowRight: () => pan(view, 0.1 * fast),
    ArrowUp: () => zoom(view, 0.8 ** fast),
    ArrowDown: () => zoom(view, 1.25 ** fast),
    '+': () => zoom(view, 0.5),
    '-': () => zoom(view, 2),
    Home: () => setView(view, 0, view.end),
    Escape: () => view.canvas.blur(),
  }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
  tell(view, view.selected);
}
