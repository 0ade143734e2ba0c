// Opens a page of `vitrum profile report` in headless Chromium, as a reader would, and compares it with the tables of
// `vitrum profile stats --format json`. No npm package: Chromium speaks JSON over two pipes.
//
//   node page.mjs CHROMIUM PAGE.html STATS.json [SCREENSHOTS]     prints one line, or what is wrong and exits with 1

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [chromium, page, stats, screenshots] = process.argv.slice(2);
if (!chromium || !page || !stats) {
  console.error('usage: node page.mjs CHROMIUM PAGE.html STATS.json [SCREENSHOTS]');
  process.exit(2);
}

const START_TIMEOUT_MS = 60_000;
const STEP_TIMEOUT_MS = 30_000;
/** Far above what it takes, for machines that do other things besides. */
const OPEN_MS_MAX = 10_000;
const WIDE = { width: 1400, height: 1000 };
const NARROW = { width: 400, height: 900 };

// ---- Chromium's protocol: JSON messages, each ended by a zero byte

class Browser {
  constructor(program, profile) {
    const flags = [
      '--headless=new',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--no-first-run',
      '--remote-debugging-pipe',
      `--user-data-dir=${profile}`,
      'about:blank',
    ];
    this.process = spawn(program, flags, { stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'] });
    this.said = '';
    this.process.stderr.on('data', (data) => {
      this.said = (this.said + data).slice(-4000);
    });
    this.process.on('exit', (code) => this.fail(new Error(`Chromium ended with ${code}:\n${this.said}`)));
    this.process.on('error', (error) => this.fail(error));
    this.waiting = new Map();
    this.listeners = [];
    this.last = 0;
    let rest = Buffer.alloc(0);
    this.process.stdio[4].on('data', (data) => {
      rest = Buffer.concat([rest, data]);
      for (let end = rest.indexOf(0); end >= 0; end = rest.indexOf(0)) {
        this.take(JSON.parse(rest.subarray(0, end).toString()));
        rest = rest.subarray(end + 1);
      }
    });
  }

  take(message) {
    if (message.id === undefined) {
      this.listeners.forEach((listener) => listener(message));
      return;
    }
    const { resolve, reject, method } = this.waiting.get(message.id);
    this.waiting.delete(message.id);
    if (message.error) reject(new Error(`${method}: ${message.error.message}`));
    else resolve(message.result);
  }

  fail(error) {
    this.waiting.forEach(({ reject }) => reject(error));
    this.waiting.clear();
  }

  send(method, params = {}, sessionId = undefined) {
    const id = ++this.last;
    this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject, method }));
  }
}

/** One tab, and everything that went wrong in it. */
class Tab {
  static async open(browser) {
    const { targetId } = await browser.send('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await browser.send('Target.attachToTarget', { targetId, flatten: true });
    const tab = new Tab();
    Object.assign(tab, { browser, sessionId, wrong: [], urls: [] });
    browser.listeners.push((message) => message.sessionId === sessionId && tab.hear(message));
    for (const domain of ['Page', 'Runtime', 'Network', 'Log']) await tab.send(`${domain}.enable`);
    return tab;
  }

  hear({ method, params }) {
    if (method === 'Runtime.exceptionThrown') {
      this.wrong.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    }
    if (method === 'Runtime.consoleAPICalled' && ['error', 'warning', 'assert'].includes(params.type)) {
      this.wrong.push(`console: ${params.args.map((argument) => argument.value ?? argument.description).join(' ')}`);
    }
    if (method === 'Log.entryAdded' && params.entry.level === 'error') this.wrong.push(`log: ${params.entry.text}`);
    if (method === 'Network.requestWillBeSent') this.urls.push(params.request.url);
  }

  send(method, params) {
    return this.browser.send(method, params, this.sessionId);
  }

  /** What an expression, which may be a promise, comes to in the page. */
  async ask(expression) {
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', {
      expression,
      awaitPromise: true,
      returnByValue: true,
    });
    if (exceptionDetails)
      throw new Error(`${expression}: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
    return result.value;
  }

  async until(expression, timeout = STEP_TIMEOUT_MS) {
    for (const end = Date.now() + timeout; Date.now() < end; await new Promise((wake) => setTimeout(wake, 50))) {
      if (await this.ask(expression)) return;
    }
    throw new Error(`not within ${timeout / 1000} s: ${expression}${this.wrong.map((line) => `\n${line}`).join('')}`);
  }

  async size({ width, height }) {
    await this.send('Emulation.setDeviceMetricsOverride', {
      width,
      height,
      deviceScaleFactor: 1,
      mobile: false,
    });
  }

  async scheme(value) {
    await this.send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value }] });
  }

  async key(key, text) {
    await this.send('Input.dispatchKeyEvent', { type: 'keyDown', key, text });
    await this.send('Input.dispatchKeyEvent', { type: 'keyUp', key });
  }

  async picture(name) {
    if (!screenshots) return;
    fs.mkdirSync(screenshots, { recursive: true });
    const { cssContentSize } = await this.send('Page.getLayoutMetrics');
    const clip = { x: 0, y: 0, width: cssContentSize.width, height: cssContentSize.height, scale: 1 };
    const { data } = await this.send('Page.captureScreenshot', { captureBeyondViewport: true, clip });
    fs.writeFileSync(path.join(screenshots, `${name}.png`), Buffer.from(data, 'base64'));
  }
}

// ---- what the page has to say

const equal = (what, found, expected) => {
  const [a, b] = [JSON.stringify(found), JSON.stringify(expected)];
  if (a !== b) throw new Error(`${what}: the page has ${a?.slice(0, 400)}, expected ${b?.slice(0, 400)}`);
};

/** The page's data, its decoded columns and its words say what the tables do. */
async function sameNumbers(tab, tables) {
  const places = tables.node_sum.map((row) => [
    row.Layer,
    row.Op,
    row.Count,
    row['Total (ns)'],
    row['GB/s'],
    row['Read peak (%)'],
    row.Level,
  ]);
  equal(
    'node_sum',
    await tab.ask(`vitrum.head.places.map((p) =>
    [p.layer, p.op, p.count, p.total_ns, p.gb_s, p.read_peak_percent, p.level])`),
    places,
  );
  for (const name of ['account', 'completeness', 'step_sum', 'cuda_gpu_kern_sum']) {
    equal(name, await tab.ask(`vitrum.head.tables[${JSON.stringify(name)}]`), tables[name]);
  }
  const parts = tables.account.map((row) => [row.Part, row['Total (ns)']]).filter(([, ns]) => ns > 0);
  const bar = await tab.ask('vitrum.head.bars[0] ?? { wall_ns: 0, parts: [] }');
  const nodes = bar.parts.filter((part) => part.kind === 'node').reduce((sum, part) => sum + part.ns, 0);
  const others = bar.parts.filter((part) => part.kind !== 'node').map((part) => [part.name, part.ns]);
  const found = [...others, ['nodes', nodes], ['wall', bar.wall_ns]].filter(([, ns]) => ns > 0);
  equal('the bar of all steps', found.sort(), parts.sort());
  // From the columns: every node's time, by the place that the page gives it.
  const sums = await tab.ask(`(() => {
    const { head, column } = vitrum;
    const sums = head.places.map(() => [0, 0]);
    const [ns, overlap, ordinals] = ['node.ns', 'node.overlap_ns', 'node.ordinal'].map(column);
    let at = 0;
    column('replay.nodes').forEach((count, replay) => {
      for (const behind = at + count; at < behind; at++) {
        const place = head.graphs[column('replay.graph')[replay]].places[ordinals[at]];
        sums[place][0]++;
        sums[place][1] += ns[at] - overlap[at];
      }
    });
    return sums;
  })()`);
  equal(
    'nodes of the timeline',
    sums,
    tables.node_sum.map((row) => [row.Count, row['Total (ns)']]),
  );
}

/** An incomplete recording is loud, a complete one is not. */
async function sameVerdict(tab, tables) {
  const total = tables.completeness.find((row) => row.Graph === 'all') ?? tables.completeness.at(-1);
  const complete = await tab.ask('vitrum.head.completeness.complete');
  equal('the alarm', await tab.ask("document.querySelector('#whole').classList.contains('loud')"), !complete);
  equal('received', await tab.ask('vitrum.head.completeness.received'), total.Received);
  return complete;
}

/** The table of nodes sorts and filters; `/` and Escape lead into the filter and out. */
async function nodeTable(tab) {
  const heading = (title) =>
    `[...document.querySelectorAll('#nodes-table thead button')].find((b) => b.textContent === '${title}')`;
  const column = (title) => `(() => { const b = ${heading(title)}; const at = b.closest('th').cellIndex;
    return [...document.querySelectorAll('#nodes-table tbody tr')].map((row) => row.cells[at].textContent); })()`;
  const runs = await tab.ask(
    "vitrum.head.places.map((p) => p.count).sort((a, b) => b - a).map((n) => n.toLocaleString('en'))",
  );
  const shown = 200;
  await tab.ask(`${heading('Runs')}.click()`);
  equal('sorted by runs', await tab.ask(column('Runs')), runs.slice(0, shown));
  await tab.ask(`${heading('Runs')}.click()`);
  equal('sorted the other way', await tab.ask(column('Runs')), runs.reverse().slice(0, shown));
  await tab.ask("document.querySelector('#nodes').scrollIntoView()");
  await tab.key('/', '/');
  await tab.until("document.activeElement.matches('#nodes-table input')");
  await tab.send('Input.insertText', { text: 'mlp.up' });
  const wanted = await tab.ask("vitrum.head.places.filter((p) => p.op === 'mlp.up').length");
  equal(
    'filtered',
    await tab.ask("document.querySelectorAll('#nodes-table tbody tr').length"),
    Math.min(wanted, shown),
  );
  await tab.key('Escape');
  equal('the filter after Escape', await tab.ask("document.querySelector('#nodes-table input').value"), '');
  equal(
    'all rows are back',
    await tab.ask("document.querySelectorAll('#nodes-table tbody tr').length"),
    Math.min(runs.length, shown),
  );
}

/** A request can be chosen, and has its steps. */
async function request(tab) {
  const id = await tab.ask(
    `(() => { const b = document.querySelector('#requests-table tbody button');
      b.click();
      return Number(b.textContent); })()`,
  );
  const [steps, ns] = await tab.ask(`(() => {
    const { column } = vitrum;
    const of = [...column('member.request').keys()].filter((at) => column('member.request')[at] === ${id});
    return [of.length, of.reduce((sum, at) => sum + column('step.node_ns')[column('member.step')[at]], 0)];
  })()`);
  equal(
    'the chosen request',
    await tab.ask("document.querySelector('#request-detail h3').textContent"),
    await tab.ask(
      `((name) => (name ? 'Request ${id} · ' + name : 'Request ${id}'))(vitrum.head.request_names[${id}])`,
    ),
  );
  const text = await tab.ask("document.querySelector('#request-detail p').textContent");
  if (!steps) return equal('a request without steps', text, 'The page holds no step of it.');
  if (!text.startsWith(`${steps.toLocaleString('en')} step`))
    throw new Error(`request ${id} has ${steps} steps: ${text}`);
  const said = /Node time of its steps: ([\d.,]+) (ns|µs|ms|s)/.exec(text);
  const scale = { ns: 1, µs: 1e3, ms: 1e6, s: 1e9 }[said?.[2]];
  if (!(Math.abs(Number(said?.[1].replace(/,/g, '')) * scale - ns) <= 0.01 * ns))
    throw new Error(`node time is ${ns} ns: ${text}`);
}

/** The timeline draws, finds nodes, goes to a step, and is moved by keys. */
async function timeline(tab) {
  await tab.ask("document.querySelector('#timeline').scrollIntoView()");
  await tab.until("document.querySelector('#timeline canvas')?.width > 0");
  const colours = `(() => { const c = document.querySelector('#timeline canvas');
    const { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height);
    return new Set(new Uint32Array(data.buffer)).size; })()`;
  await tab.until(`${colours} > 4`);
  const nodes = await tab.ask(
    "vitrum.head.places.filter((p) => p.op === 'mlp.up').reduce((sum, p) => sum + p.count, 0)",
  );
  const found = await tab.ask("vitrum.timeline().search('mlp.up')");
  if (!found.startsWith(`${nodes.toLocaleString('en')} node`)) throw new Error(`${nodes} nodes are mlp.up: ${found}`);
  await tab.ask("document.querySelector('#timeline input').focus()");
  await tab.key('Enter', '\r');
  await tab.until("document.querySelector('#timeline .readout').textContent.includes('mlp.up')");
  await tab.ask("document.querySelector('#timeline canvas').focus()");
  const view = '(({ from, to }) => [from, to])(vitrum.timeline().view)';
  await tab.key('Home');
  const all = await tab.ask(view);
  equal('all of the window', all, [0, await tab.ask('vitrum.head.window.ns')]);
  await tab.key('ArrowUp');
  const closer = await tab.ask(view);
  if (!(closer[1] - closer[0] < all[1])) throw new Error(`zoomed to ${closer}`);
  await tab.key('Escape');
  equal('Escape leaves the timeline', await tab.ask("document.activeElement.tagName !== 'CANVAS'"), true);
  await tab.ask("vitrum.timeline().search(''), document.querySelector('#timeline canvas').focus()");
  await tab.key('Home');
  await tab.key('Escape');
}

async function schemes(tab) {
  const ground = 'getComputedStyle(document.body).backgroundColor';
  const grounds = {};
  for (const scheme of ['dark', 'light']) {
    await tab.scheme(scheme);
    await tab.until(`document.documentElement.dataset.theme === '${scheme}'`);
    grounds[scheme] = await tab.ask(ground);
    await tab.picture(`wide-${scheme}`);
    await tab.size(NARROW);
    await tab.until(`innerWidth === ${NARROW.width}`);
    const width = await tab.ask('document.documentElement.scrollWidth');
    if (width > NARROW.width) throw new Error(`at ${NARROW.width} px the page is ${width} px wide`);
    await tab.picture(`narrow-${scheme}`);
    await tab.size(WIDE);
  }
  if (grounds.dark === grounds.light) throw new Error(`both themes have ${grounds.dark}`);
  // The button goes from the system's theme to light, then to dark.
  await tab.ask("document.querySelector('#theme').click(), document.querySelector('#theme').click()");
  equal('the theme by its button', await tab.ask('document.documentElement.dataset.theme'), 'dark');
  await tab.ask("document.querySelector('#theme').click()");
}

async function check(tab) {
  const url = pathToFileURL(path.resolve(page)).href;
  const tables = JSON.parse(fs.readFileSync(stats, 'utf8'));
  await tab.size(WIDE);
  await tab.send('Page.navigate', { url });
  await tab.until('window.vitrum?.openMs > 0');
  const openMs = await tab.ask('vitrum.openMs');
  const complete = await sameVerdict(tab, tables);
  await sameNumbers(tab, tables);
  if (tables.node_sum.length) {
    await nodeTable(tab);
    await timeline(tab);
  }
  if (await tab.ask("vitrum.column('request.id').length")) await request(tab);
  await schemes(tab);
  const { data } = await tab.send('Page.printToPDF', { printBackground: true });
  if (Buffer.from(data, 'base64').length < 10_000) throw new Error('the printed page is empty');
  const outside = tab.urls.filter((asked) => asked !== url && !/^(data|blob|about):/.test(asked));
  if (outside.length) throw new Error(`the page asks for ${outside.join(', ')}`);
  if (tab.wrong.length) throw new Error(tab.wrong.join('\n'));
  if (openMs > OPEN_MS_MAX) throw new Error(`opened in ${openMs} ms, at most ${OPEN_MS_MAX}`);
  const nodes = await tab.ask("vitrum.column('node.ns').length");
  const size = (fs.statSync(page).size / 1e6).toFixed(2);
  const kind = complete ? 'a complete' : 'an incomplete';
  return `${nodes} nodes of ${kind} recording, ${size} MB, opened in ${openMs.toFixed(0)} ms`;
}

const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'vitrum-page-'));
const browser = new Browser(chromium, profile);
const late = setTimeout(
  () => browser.fail(new Error(`no answer:\n${browser.said}`)),
  START_TIMEOUT_MS + 4 * STEP_TIMEOUT_MS,
);
try {
  console.log(await check(await Tab.open(browser)));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  clearTimeout(late);
  browser.process.removeAllListeners('exit');
  const ended = new Promise((resolve) => browser.process.on('exit', resolve));
  browser.send('Browser.close').catch(() => {});
  setTimeout(() => browser.process.kill('SIGKILL'), 5000).unref();
  await ended;
  // Processes of the browser may still write there.
  fs.rmSync(profile, { recursive: true, force: true, maxRetries: 50, retryDelay: 100 });
}
