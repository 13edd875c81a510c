// Elements are built from text alone: nothing that a sweep says is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// An HTML element; attributes that are null are left out, strings among the children are text.
function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

// The same for a part of a picture.
function shape(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

// The outline of a trial's mark around (0, 0).
function outline(trial, size) {
  const r = size;
  if (trial.plan === "reference") return `M0 ${-1.3 * r}L${1.3 * r} 0L0 ${1.3 * r}L${-1.3 * r} 0Z`;
  if (trial.plan) return `M${-r} ${-r}H${r}V${r}H${-r}Z`;
  return `M${-r} 0A${r} ${r} 0 1 1 ${r} 0A${r} ${r} 0 1 1 ${-r} 0Z`;
}

function markClass(trial) {
  const state = trial.state ?? "unconfirmed";
  if (trial.outcome === "failed") return "mark failed";
  if (trial.front) return `mark front ${state}`;
  return `mark ${trial.plan === "reference" ? "reference" : "beaten"} ${state}`;
}

// From values to pixels and back, linear or logarithmic.
function makeScale(low, high, start, end, logarithmic) {
  const bend = logarithmic ? Math.log : (value) => value;
  const unbend = logarithmic ? Math.exp : (value) => value;
  const [a, b] = [bend(low), bend(high)];
  const scale = (value) => start + ((bend(value) - a) / (b - a || 1)) * (end - start);
  scale.invert = (pixel) => unbend(a + ((pixel - start) / (end - start)) * (b - a));
  scale.ticks = () => (logarithmic ? powerTicks(low, high) : evenTicks(low, high));
  return scale;
}

function evenTicks(low, high, most = 7) {
  const raw = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= raw) * power;
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high + step / 1e6; i++) ticks.push(i * step);
  return ticks;
}

function powerTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const factor of [1, 2, 5]) ticks.push(factor * 10 ** power);
  }
  return ticks.filter((tick) => tick >= low && tick <= high);
}
