// Opens the recording and draws section by section; `/` goes to the nearest filter.

function startKeys() {
  addEventListener('keydown', (event) => {
    const typing = event.target.closest?.('input, textarea');
    if (event.key !== '/' || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const fields = [...document.querySelectorAll('input[type=search]')].filter((field) => field.offsetParent);
    const distance = (field) => Math.abs(field.getBoundingClientRect().top - innerHeight / 2);
    const nearest = fields.sort((a, b) => distance(a) - distance(b))[0];
    if (!nearest) return;
    event.preventDefault();
    nearest.focus();
    nearest.select();
  });
}

const DRAWS = [
  drawSummary,
  drawSteps,
  drawAccount,
  drawHeat,
  drawRoofline,
  drawNodes,
  drawRequests,
  startTimeline,
  drawTables,
];

async function openPage() {
  startTheme();
  startKeys();
  if (typeof DecompressionStream === 'undefined')
    throw new Error('this browser cannot unpack gzip: it is older than 2023');
  const run = await openRun();
  // For scripts that read the page.
  window.vitrum = { head: run.head, column: run.column, timeline: () => timeline?.make(), openMs: null };
  DRAWS.forEach((drawSection) => drawSection(run));
  byId('opening').remove();
  byId('foot').append(
    make('p', {
      class: 'note',
      text: `Written by vitrum from recording ${run.head.recording}. This page needs no network and sends nothing.`,
    }),
  );
  window.vitrum.openMs = performance.now();
}

openPage().catch((error) => {
  byId('opening').className = 'alarm loud';
  byId('opening').textContent =
    `The report could not be opened: ${error.message}. The same numbers: vitrum profile stats FILE.vtr`;
  throw error;
});
