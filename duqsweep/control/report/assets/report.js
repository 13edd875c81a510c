// Puts the parts together: one state, and one way to draw it.

function start() {
  const report = JSON.parse(document.getElementById("data").textContent);
  const place = document.getElementById("explorer");
  if (!report.trials.length) return;
  let chosen = null;

  const filters = makeFilters(report, draw);
  const chart = makeChart(report, { open, brush: (low, high) => filters.setRange(low, high) });
  const panel = makePanel(report, close);
  const tables = makeTables(report, open);

  function draw() {
    const shown = report.trials.filter((trial) => filters.matches(trial));
    filters.say(shown.length);
    chart.draw(shown, filters.range(), chosen && chosen.trial);
    tables.show(shown);
  }

  // `focus`: the panel is read next; a click with the mouse leaves the focus where it is.
  function open(trial, focus) {
    chosen = trial;
    panel.show(trial);
    tables.choose(trial.trial);
    draw();
    if (focus) panel.root.focus();
  }

  function close() {
    const before = chosen;
    chosen = null;
    panel.hide();
    tables.choose(null);
    draw();
    chart.focus(before);
  }

  place.append(
    filters.root,
    element("div", { class: "explorer" },
      element("div", {}, chart.root, legend(report),
        element("p", { class: "note" }, "Click a mark for all about a trial. Drag along the "
          + "picture for a range of the axis below it; a double click shows all again.")),
      panel.root),
  );
  const first = report.trials.find((trial) => trial.trial === report.first);
  if (first && window.matchMedia("(min-width: 1000px)").matches) open(first, false);
  else draw();
  let width = chart.root.clientWidth;
  new ResizeObserver(() => {
    if (chart.root.clientWidth === width) return;
    width = chart.root.clientWidth;
    draw();
  }).observe(chart.root);
}

start();
