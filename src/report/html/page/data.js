// The recording in this page: a head of facts and tables, and columns of integers. `run` is what the sections draw.

const DATA_ID = 'data';

/** Unpacks the page's data: base64, gzip; the head's length in 4 bytes, the head as JSON, columns. */
async function openRun() {
  const text = document.getElementById(DATA_ID).textContent;
  const packed = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : bytesOfBase64(text);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const length = new DataView(bytes.buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  return makeRun(head, bytes.subarray(4 + length));
}

function bytesOfBase64(text) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = characters.charCodeAt(at);
  return bytes;
}

function makeRun(head, bytes) {
  const index = new Map(head.columns.map((column) => [column.name, column]));
  const decoded = new Map();
  /** A column as numbers; decoded when it is first asked for. */
  const column = (name) => {
    if (!decoded.has(name)) decoded.set(name, decode(bytes, index.get(name)));
    return decoded.get(name);
  };
  const run = { head, column };
  run.placeNames = head.places.map(placeName);
  run.opIndex = new Map(head.ops.map((op, at) => [op, at]));
  return run;
}

const placeName = ({ layer, op }) => (layer === null ? op : `layer ${layer} ${op}`);

/** Seven bits a byte, the lowest first; what that is a number, or a difference, of is the column's encoding. */
function decode(bytes, { encoding, count, at }) {
  const values = new Float64Array(count);
  let last = 0;
  for (let index = 0; index < count; index++) {
    let byte = bytes[at++];
    let value = byte & 127;
    // Beyond 32 bits shifts lose bits: multiply.
    for (let scale = 128; byte > 127; scale *= 128) {
      byte = bytes[at++];
      value += (byte & 127) * scale;
    }
    if (encoding !== 'plain') value = value % 2 ? -(value + 1) / 2 : value / 2;
    if (encoding === 'delta') value = last += value;
    values[index] = value;
  }
  return values;
}

/** Nodes by begin. Made when the timeline is. */
function nodesOf(run) {
  if (run.nodes) return run.nodes;
  const [graphs, counts] = [run.column('replay.graph'), run.column('replay.nodes')];
  const [ordinals, gaps, durations] = ['node.ordinal', 'node.gap_ns', 'node.ns'].map(run.column);
  const count = durations.length;
  const nodes = {
    count,
    start: new Float64Array(count),
    end: new Float64Array(count),
    place: new Int32Array(count),
    kernel: new Int32Array(count),
    replay: new Uint32Array(count),
    overlap: run.column('node.overlap_ns'),
  };
  let at = 0;
  let lastEnd = 0;
  for (let replay = 0; replay < counts.length; replay++) {
    const graph = run.head.graphs[graphs[replay]];
    for (const behind = at + counts[replay]; at < behind; at++) {
      nodes.start[at] = lastEnd + gaps[at];
      lastEnd = nodes.end[at] = nodes.start[at] + durations[at];
      nodes.place[at] = graph.places[ordinals[at]];
      nodes.kernel[at] = graph.kernels[ordinals[at]];
      nodes.replay[at] = replay;
    }
  }
  return (run.nodes = sortByStart(nodes));
}

/** Replays follow each other, so their nodes are mostly sorted already. */
function sortByStart(nodes) {
  const { start, count } = nodes;
  let sorted = true;
  for (let at = 1; at < count && sorted; at++) sorted = start[at - 1] <= start[at];
  if (sorted) return nodes;
  const order = Uint32Array.from({ length: count }, (_, at) => at).sort((a, b) => start[a] - start[b]);
  const moved = { count };
  for (const [name, values] of Object.entries(nodes)) {
    if (name !== 'count') moved[name] = values.map((_, at) => values[order[at]]);
  }
  return moved;
}

/** Members of each request, as indices of the member columns; by request id. */
function membersByRequest(run) {
  if (run.members) return run.members;
  run.members = new Map();
  run.column('member.request').forEach((id, at) => {
    const members = run.members.get(id);
    if (members) members.push(at);
    else run.members.set(id, [at]);
  });
  return run.members;
}

/** The first index whose value is not below, in ascending values. */
function lowerBound(values, value) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
