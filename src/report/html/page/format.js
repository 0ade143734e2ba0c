// Numbers as text, and elements. Text from the recording becomes text of an element, never HTML.

const INTEGER = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

const count = (value) => INTEGER.format(value);

/** Nanoseconds with three digits: `1.23 ms`. */
function duration(ns) {
  if (ns === null || !Number.isFinite(ns)) return '–';
  const size = Math.abs(ns);
  const [scale, unit] = size < 1e3 ? [1, 'ns'] : size < 1e6 ? [1e3, 'µs'] : size < 1e9 ? [1e6, 'ms'] : [1e9, 's'];
  return `${digits(ns / scale)} ${unit}`;
}

/** Three digits, and as many as there are before the point. */
function digits(value) {
  if (value === null || !Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size >= 100 || Number.isInteger(value)) return count(value);
  return value.toFixed(size >= 10 ? 1 : size >= 0.1 || size === 0 ? 2 : 4);
}

const percent = (value) => (value === null || !Number.isFinite(value) ? '–' : `${value.toFixed(1)} %`);

/** `3 steps`, `1 step`. */
const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? '' : 's'}`;

/** What a filter asks for; `layer 3` is one thing. */
const wordsOf = (text) => text.toLowerCase().match(/layer \d+|\S+/g) ?? [];

/** Whether a text, in small letters, has a word. `layer 3` is not `layer 30`. */
function holds(text, word) {
  return /^layer \d+$/.test(word) ? `${text} `.includes(`${word} `) : text.includes(word);
}

const SVG = 'http://www.w3.org/2000/svg';

/** An element. `on…` attributes are listeners, `text` is its text; a child that is null is left out. */
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same of SVG. */
function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'text') element.textContent = value;
    else if (name === 'style') element.style.cssText = value;
    else if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const byId = (id) => document.getElementById(id);

/** Shows a section, and its link in the page's head. */
function show(id, title) {
  byId(id).hidden = false;
  byId('nav').append(make('a', { href: `#${id}`, text: title }));
}
