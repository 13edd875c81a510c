// The bits of each layer of one trial: a grid per part of the policy, a column per layer of it.

const CELL = 15;
const FULL = 16;

function bitsMaps(report, number) {
  const { layers, maps } = report.bits;
  const parts = new Map();
  maps[number].forEach((bits, i) => {
    const [part, column, name] = layers[i];
    if (!parts.has(part)) parts.set(part, []);
    parts.get(part).push({ column, name, bits });
  });
  return [...parts].filter(([, cells]) => cells.some((cell) => cell.bits))
    .map(([part, cells]) => bitsMap(part, cells));
}

function bitsMap(part, cells) {
  const rows = [...new Set(cells.map((cell) => cell.name))];
  const columns = Math.max(...cells.map((cell) => cell.column)) + 1;
  const left = 62;
  const width = left + columns * CELL;
  const height = rows.length * CELL + 14;
  const counted = new Map();
  for (const { bits } of cells) {
    const text = bits ? `${bits[0]} bits` : "not quantized";
    counted.set(text, (counted.get(text) ?? 0) + 1);
  }
  const said = [...counted].map(([text, count]) => `${count} × ${text}`).join(", ");
  const parts = cells.map(({ column, name, bits }) => cell(part, column, name, bits,
    left + column * CELL, rows.indexOf(name) * CELL));
  const names = rows.map((name, i) => shape("text", { class: "row", x: left - 5,
    y: i * CELL + 11 }, name.split(".").at(-1)));
  const numbers = Array.from({ length: columns }, (_, i) => i)
    .filter((i) => i % 5 === 0)
    .map((i) => shape("text", { x: left + (i + 0.5) * CELL, y: height - 3 }, String(i)));
  return element("div", { class: "bits" },
    element("p", {}, `${part}, weights of ${cells.length} layers: ${said}`),
    shape("svg", { viewBox: `0 0 ${width} ${height}`, width, role: "img",
      "aria-label": `${part}: ${said}` }, ...parts, ...names, ...numbers));
}

function cell(part, column, name, bits, x, y) {
  const share = bits ? Math.max(0.1, 1 - bits[0] / (FULL / 1.6)) : 0;
  const style = `fill: color-mix(in srgb, var(--heat) ${(100 * share).toFixed(0)}%, var(--page))`;
  const text = bits ? `weights ${bits[0]} bits, activations ${bits[1]}` : "not quantized";
  return shape("g", {}, shape("title", {}, `${part} layer ${column} ${name}: ${text}`),
    shape("rect", { x, y, width: CELL, height: CELL, style }),
    shape("text", { x: x + CELL / 2, y: y + 11 }, bits ? String(bits[0]) : ""));
}
