// Which trials are shown: by kernel, outcome, plan and a range of the horizontal axis.

const SEARCHED = "\u0000searched"; // no plan has this name

function makeFilters(report, changed) {
  const { trials, x } = report;
  const select = (label, all, values) => {
    const options = values.map(([value, text]) => element("option", { value }, text));
    const control = element("select", {}, element("option", { value: "" }, all), ...options);
    control.addEventListener("change", changed);
    return { control, field: element("label", {}, label, control) };
  };
  const distinct = (key) => [...new Set(trials.map((t) => t[key]).filter(Boolean))].sort();
  const same = (values) => values.map((value) => [value, value]);
  const kernel = select("kernel", "any kernel", same(distinct("kernel")));
  const outcome = select("outcome", "any outcome", [["\u0000front", "on the front"],
    ...same(distinct("outcome"))]);
  const plan = select("plan", "plans and others", [[SEARCHED, "proposed by the sampler"],
    ...same(distinct("plan"))]);
  const bound = (label) => {
    const control = element("input", { type: "number", min: 0, step: "any", placeholder: "any" });
    control.addEventListener("change", changed);
    return { control, field: element("label", {}, label, control) };
  };
  const from = bound(`${x.column} from`);
  const to = bound(`${x.column} to`);
  const reset = element("button", { type: "button" }, "Show all");
  const count = element("output", { "aria-live": "polite" });
  const fields = [kernel, outcome, plan, from, to];
  const root = element("form", { class: "filters", "aria-label": "Filters" },
    ...fields.map((one) => one.field), reset, count);
  const number = (one) => (one.control.value === "" ? null : Number(one.control.value));
  const filters = {
    root,
    range: () => [number(from), number(to)],
    setRange(low, high) {
      from.control.value = low === null ? "" : Number(low.toPrecision(3));
      to.control.value = high === null ? "" : Number(high.toPrecision(3));
      changed();
    },
    matches(trial) {
      const [low, high] = filters.range();
      const wanted = plan.control.value;
      const state = outcome.control.value;
      return (!kernel.control.value || trial.kernel === kernel.control.value)
        && (!state || (state === "\u0000front" ? trial.front : trial.outcome === state))
        && (!wanted || (wanted === SEARCHED ? !trial.plan : trial.plan === wanted))
        && (low === null || (trial.x !== null && trial.x >= low))
        && (high === null || (trial.x !== null && trial.x <= high));
    },
    say(shown) {
      count.textContent = `${shown} of ${trials.length} trials`;
    },
  };
  reset.addEventListener("click", () => {
    for (const one of fields) one.control.value = "";
    changed();
  });
  root.addEventListener("submit", (event) => event.preventDefault());
  return filters;
}
