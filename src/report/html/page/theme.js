// Light and dark: as the system says, or as the button does. Canvases are drawn again when it changes.

const THEMES = ['auto', 'light', 'dark'];
const redraws = [];
const darkSystem = matchMedia('(prefers-color-scheme: dark)');
let theme = 'auto';

/** Calls now, and whenever colours have changed. */
function whenThemed(redraw) {
  redraws.push(redraw);
  redraw();
}

function applyTheme(shown = theme) {
  const dark = shown === 'auto' ? darkSystem.matches : shown === 'dark';
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
  byId('theme').textContent = `Theme: ${theme}`;
  redraws.forEach((redraw) => redraw());
}

/** A colour of the style sheet. */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
/** An op's name in the style sheet, of its class and of its colour. */
const opClass = (op) => `op-${op.replace(/[._ ]/g, '-')}`;
const opColour = (op) => colour(opClass(op));

function startTheme() {
  byId('theme').addEventListener('click', () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    applyTheme();
  });
  darkSystem.addEventListener('change', () => applyTheme());
  // Paper is white.
  addEventListener('beforeprint', () => applyTheme('light'));
  addEventListener('afterprint', () => applyTheme());
  applyTheme();
}
