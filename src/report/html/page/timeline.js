// The timeline: steps, layers, nodes, the engine's thread and requests, as lanes on a canvas.

const LANE_HEIGHT = 22;
const REQUESTS_HEIGHT = 132;
const RULER_HEIGHT = 24;
/** Above each lane, for its name. */
const NAME_HEIGHT = 15;
const LABEL_PX = 44;
/** Nanoseconds that the view shows at least. */
const VIEW_MIN_NS = 50;

let timeline = null;

/** Moves the page to a step's slices. */
function showStepInTimeline(step) {
  timeline?.make().showStep(step);
}

function startTimeline(run) {
  const hasTimes = run.column('node.ns').length + run.column('span.ns').length > 0;
  if (!hasTimes) return;
  show('timeline', 'Timeline');
  let made = null;
  timeline = { make: () => (made ??= makeTimeline(run)) };
  // Nodes are unpacked when someone comes near.
  const near = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      near.disconnect();
      timeline.make();
    },
    { rootMargin: '600px' },
  );
  near.observe(byId('timeline'));
}

function makeTimeline(run) {
  const lanes = makeLanes(run);
  const canvas = make('canvas', {
    tabindex: '0',
    role: 'application',
    'aria-label': 'Timeline: arrow keys move and zoom, Home shows all, Escape leaves',
  });
  const readout = make('p', { class: 'readout', role: 'status' });
  const height = lanes.at(-1).y + lanes.at(-1).height + 6;
  const view = {
    run,
    canvas,
    readout,
    lanes,
    height,
    from: 0,
    to: run.head.window.ns || 1,
    end: run.head.window.ns || 1,
    selected: null,
    hovered: null,
    matches: null,
    frame: 0,
  };
  const api = { view, showStep: (step) => showStep(view, step), search: null };
  byId('timeline-view').append(timelineTools(run, view, api), make('div', { class: 'canvas-box' }, canvas), readout);
  canvas.style.height = `${height}px`;
  listen(view);
  new ResizeObserver(() => requestDraw(view)).observe(canvas);
  whenThemed(() => {
    lanes.forEach((lane) => {
      lane.colours = lane.palette();
    });
    requestDraw(view);
  });
  tell(view, null);
  return api;
}
