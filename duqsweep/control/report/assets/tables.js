// Tables: headings sort, numbers of trials open the panel, rows follow the filters.

function makeTables(report, open) {
  const trials = new Map(report.trials.map((trial) => [trial.trial, trial]));
  document.querySelectorAll("table.sortable th").forEach((head) => {
    const button = element("button", { type: "button" }, head.textContent);
    button.addEventListener("click", () => sortBy(head));
    head.replaceChildren(button);
  });
  document.querySelectorAll("tr[data-trial]").forEach((row) => {
    const first = row.cells[0];
    const button = element("button", { type: "button" }, first.textContent);
    button.addEventListener("click", () => open(trials.get(Number(row.dataset.trial)), true));
    first.classList.add("trial");
    first.replaceChildren(button);
  });
  const every = [...document.querySelectorAll("#every-trial tr[data-trial]")];
  return {
    show(shown) {
      const numbers = new Set(shown.map((trial) => String(trial.trial)));
      for (const row of every) row.hidden = !numbers.has(row.dataset.trial);
    },
    choose(number) {
      document.querySelectorAll("tr.shown").forEach((row) => row.classList.remove("shown"));
      if (number === null) return;
      document.querySelectorAll(`tr[data-trial="${number}"]`)
        .forEach((row) => row.classList.add("shown"));
    },
  };
}

function sortBy(head) {
  const table = head.closest("table");
  const body = table.tBodies[0];
  const column = head.cellIndex;
  const up = head.getAttribute("aria-sort") !== "ascending";
  const value = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
  const empty = (text) => text === "" || text === "–";
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (empty(x) || empty(y)) return empty(x) - empty(y);
    const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return up ? order : -order;
  });
  body.append(...rows);
  table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
}
