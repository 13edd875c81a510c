// What is drawn: axes, the line of the front, intervals, labels and the legend.

const MARGIN = { left: 62, right: 18, top: 14, bottom: 48 };

// Sizes, scales and the trials that have a place, from the left.
function layOut(report, trials, range, width) {
  const placed = trials.filter((trial) => trial.x !== null && trial.y !== null);
  const drawn = [...placed].sort((a, b) => a.x - b.x);
  const timed = trials.filter((trial) => trial.x !== null && trial.y === null);
  const height = width < 600 ? 360 : 500;
  const floor = height - MARGIN.bottom;
  const x = horizontal(report, [...drawn, ...timed], range, width);
  const y = vertical(report, drawn, floor - 14);
  y.height = floor - MARGIN.top;
  const overlay = shape("g", { "pointer-events": "none" });
  return { drawn, timed, width, height, floor, x, y, overlay, marks: new Map(), dragged: false };
}

function horizontal(report, timed, range, width) {
  const values = [...timed.map((trial) => trial.x), report.x.reference].filter((v) => v !== null);
  let [low, high] = [Math.min(...values, Infinity), Math.max(...values, 0)];
  if (!values.length) [low, high] = [0, 1];
  const logarithmic = low > 0 && high / low > report.logFromRatio;
  if (logarithmic) [low, high] = [low / 1.1, high * 1.1];
  else if (report.x.rate) [low, high] = [low - 0.03, 1.02];
  else [low, high] = [0, high * 1.05];
  low = range[0] === null ? low : Math.max(range[0], logarithmic ? low : 0);
  high = range[1] === null ? high : range[1];
  if (!(high > low)) high = low + 1;
  return makeScale(low, high, MARGIN.left, width - MARGIN.right, logarithmic);
}

// From the lowest bound that is drawn: of a value, or of the interval of a trial on the front.
function vertical(report, drawn, floor) {
  const bounds = drawn.flatMap((t) => (t.front && t.low !== null ? [t.y, t.low, t.high] : [t.y]));
  let [low, high] = [Math.min(...bounds), Math.max(...bounds)];
  if (!bounds.length) [low, high] = [0, 1];
  if (report.y.rate) high = 1;
  const room = 0.04 * (high - low || Math.abs(high) || 1);
  const scale = makeScale(low - room, high + room, floor, MARGIN.top, false);
  const inner = scale.ticks;
  scale.ticks = () => inner().filter((tick) => !report.y.rate || (tick >= 0 && tick <= 1));
  return scale;
}

function axes(report, view) {
  const { x, y, width, height, floor } = view;
  const right = width - MARGIN.right;
  const text = (value, rate) => (rate ? `${Math.round(100 * value)} %`
    : `${Number(value.toPrecision(3))}`);
  const parts = y.ticks().flatMap((tick) => [
    shape("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(tick), y2: y(tick) }),
    shape("text", { x: MARGIN.left - 8, y: y(tick) + 4, "text-anchor": "end" },
      text(tick, report.y.rate)),
  ]);
  parts.push(shape("line", { class: "axis", x1: MARGIN.left, x2: right, y1: floor, y2: floor }));
  for (const tick of x.ticks()) {
    parts.push(shape("line", { class: "axis", x1: x(tick), x2: x(tick), y1: floor, y2: floor + 5 }),
      shape("text", { x: x(tick), y: floor + 18, "text-anchor": "middle" },
        text(tick, report.x.rate)));
  }
  parts.push(shape("text", { x: (MARGIN.left + right) / 2, y: height - 8, "text-anchor": "middle" },
    report.x.label));
  parts.push(shape("text", { transform: `translate(13 ${floor / 2}) rotate(-90)`,
    "text-anchor": "middle" }, report.y.label));
  if (report.x.reference !== null && x.invert(right) >= report.x.reference) {
    const at = x(report.x.reference);
    if (at >= MARGIN.left) {
      parts.push(shape("line", { class: "reference-line", x1: at, x2: at, y1: MARGIN.top,
        y2: floor }));
    }
  }
  for (const trial of view.timed) {
    if (x(trial.x) < MARGIN.left || x(trial.x) > right) continue;
    const tick = `M${x(trial.x).toFixed(1)} ${floor - 1}v-8`;
    parts.push(shape("path", { class: "mark untried", d: tick },
      shape("title", {}, trial.summary)));
  }
  return parts;
}

// The line through the trials that no other beats.
function staircase(report, view) {
  const front = view.drawn.filter((trial) => trial.front);
  if (!report.joined || !front.length) return [];
  const right = view.width - MARGIN.right;
  const at = front.map((trial) => [view.x(trial.x).toFixed(1), view.y(trial.y).toFixed(1)]);
  let d = `M${at[0][0]} ${at[0][1]}`;
  for (const [x, y] of at.slice(1)) {
    d += report.x.direction === "minimize" ? `H${x}V${y}` : `V${y}H${x}`;
  }
  return [shape("path", { class: "staircase", d: report.x.direction === "minimize"
    ? `${d}H${right}` : d })];
}

function interval(trial, view, css) {
  const x = view.x(trial.x);
  return shape("line", { class: `interval ${css}`, x1: x, x2: x, y1: view.y(trial.low),
    y2: view.y(trial.high) });
}

// Names of plans and of trials on the front, where there is room.
function labels(view) {
  const taken = view.drawn.filter((t) => t.front || t.plan)
    .map((t) => [view.x(t.x) - 6, view.y(t.y) - 6, view.x(t.x) + 6, view.y(t.y) + 6]);
  const free = (box) => box[0] > MARGIN.left && box[2] < view.width - 4 && box[1] > 0
    && box[3] < view.floor
    && !taken.some((o) => box[0] < o[2] && o[0] < box[2] && box[1] < o[3] && o[1] < box[3]);
  const named = view.drawn.filter((trial) => trial.front || trial.plan);
  return named.sort((a, b) => b.front - a.front).flatMap((trial) => {
    const [x, y, wide] = [view.x(trial.x), view.y(trial.y), 6.8 * trial.label.length + 4];
    const [right, left] = [x + 9, x - 9 - wide];
    const places = [[right, y - 20], [right, y + 6], [left, y - 20], [left, y + 6],
      [right, y - 7], [left, y - 7]];
    const box = places.map(([a, b]) => [a, b, a + wide, b + 14]).find(free);
    if (!box) return [];
    taken.push(box);
    return [shape("text", { class: `label${trial.front ? " front" : ""}`, x: box[0],
      y: box[3] - 3 }, trial.label)];
  });
}

function legend(report) {
  const { trials } = report;
  const states = ["confirmed", "refuted"].map((state) => [{ front: true, state },
    `${state} on reserved states`, trials.some((trial) => trial.state === state)]);
  const entries = [
    [{ front: true }, report.y.rate ? "on the front, with its 95 % interval" : "on the front", true],
    ...states,
    [{}, "beaten by another trial", true],
    [{ plan: "any" }, "named plan", trials.some((t) => t.plan && t.plan !== "reference")],
    [{ plan: "reference" }, "reference: unquantized, eager",
      trials.some((trial) => trial.plan === "reference")],
  ];
  const sample = (trial) => shape("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" },
    shape("path", { class: markClass(trial), d: outline(trial, 5) }));
  const shown = entries.filter(([, , occurs]) => occurs)
    .map(([trial, text]) => element("li", {}, sample(trial), text));
  if (trials.some((trial) => trial.x !== null && trial.y === null)) {
    shown.push(element("li", {}, "│ at the bottom: timed, no episode"));
  }
  return element("ul", { class: "legend" }, ...shown);
}
