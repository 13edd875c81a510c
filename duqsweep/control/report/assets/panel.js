// Everything about one trial, beside the picture.

function makePanel(report, closed) {
  const root = element("aside",
    { class: "panel", tabindex: -1, "aria-label": "Trial", hidden: "" });
  root.addEventListener("keydown", (event) => { if (event.key === "Escape") closed(); });
  return {
    root,
    show(trial) {
      const close = element("button", { type: "button", class: "close" }, "Close");
      close.addEventListener("click", closed);
      root.replaceChildren(close, ...contents(report, trial));
      root.scrollTop = 0;
      root.hidden = false;
    },
    hide() { root.hidden = true; },
  };
}

function contents(report, trial) {
  const place = (trial.front ? "on the front" : "not on the front")
    + (trial.state === "unconfirmed" ? "" : `, ${trial.state} on states that no search uses`);
  return [
    element("h2", {}, `Trial ${trial.label}`),
    element("p", {}, trial.outcome === "complete" ? `complete, ${place}`
      : `${trial.outcome}: ${trial.reason}`),
    ...list("Measured", trial.measures),
    ...list("Settings", trial.settings),
    ...list("What made it fast", trial.factors),
    ...times(trial),
    ...taskBars(report, trial),
    ...errors(trial),
    ...bitsPart(report, trial),
    ...videos(report, trial),
    ...commands(report, trial),
  ];
}

function list(title, pairs) {
  if (!pairs.length) return [];
  const entries = pairs.flatMap(([name, value]) => [element("dt", {}, name),
    element("dd", {}, value)]);
  return [element("h3", {}, title), element("dl", {}, ...entries)];
}

function times(trial) {
  if (!trial.parts) return [];
  const total = trial.parts.reduce((sum, part) => sum + part[1], 0);
  const bar = element("div", { class: "bar", "aria-hidden": "true" });
  const rows = trial.parts.flatMap(([name, ms, text], i) => {
    const piece = element("span", { class: `part-${i + 1}` });
    piece.style.width = `${(100 * ms) / total}%`;
    bar.append(piece);
    const twin = (trial.twin ?? []).find(([part]) => part === name);
    return [element("dt", {}, element("span", { class: `swatch part-${i + 1}` }), name),
      element("dd", {}, twin ? `${text}; unquantized ${twin[1]}` : text)];
  });
  for (const [stage, text] of trial.stages) {
    rows.push(element("dt", { class: "stage" }, `of these, ${stage}`), element("dd", {}, text));
  }
  const rotated = !trial.rotations || trial.rotations === "0" ? ""
    : ` ${trial.rotations} rotations of a block per call, in ${trial.layers} quantized layers.`;
  return [element("h3", {}, "Where a call's time goes"), bar, element("dl", {}, ...rows),
    element("p", {}, `Whole calls ${trial.calls}.${rotated}`)];
}

function taskBars(report, trial) {
  if (!trial.tasks || !trial.tasks.length) return [];
  const rows = trial.tasks.map(([task, successes, ran]) => {
    const won = element("span", { class: "won" });
    won.style.width = ran ? `${(100 * successes) / ran}%` : "0";
    const name = report.tasks[task] ?? `task ${task}`;
    return element("div", { class: "task" },
      element("p", {}, element("span", {}, name), element("span", {}, `${successes} of ${ran}`)),
      element("div", { class: "bar", "aria-hidden": "true" }, won));
  });
  return [element("h3", {}, "Success of each task"), ...rows];
}

function errors(trial) {
  if (!trial.errors || !trial.errors.length) return [];
  return list("Episodes that ended in an error", trial.errors.map(([why, n]) => [`${n} ×`, why]));
}

function bitsPart(report, trial) {
  if (trial.bits === null || trial.bits === undefined) return [];
  return [element("h3", {}, "Bits of each layer"), ...bitsMaps(report, trial.bits)];
}

function videos(report, trial) {
  const own = report.films.filter((film) => film.trials.includes(trial.trial));
  if (!own.length) return [];
  const shown = own.map((film) => element("figure", {},
    element("video", { controls: "", preload: "none", src: encodeURI(film.path) }),
    element("figcaption", {}, film.caption)));
  return [element("details", {}, element("summary", {}, `${own.length} videos`), ...shown)];
}

function commands(report, trial) {
  const verb = "python -m duqsweep";
  const all = [
    ["evaluate again", `${verb} evaluate ${trial.again}`, Boolean(trial.again)],
    ["evaluate on states that the search never saw",
      `${verb} confirm ${report.folder} --trials ${trial.trial}`, report.plays],
    ["export", `${verb} export ${report.folder} --trial ${trial.trial} --format yaml`, true],
    ["watch beside the reference",
      `${verb} video ${report.folder} --trial ${trial.trial} --beside reference`, report.plays],
  ];
  const shown = all.filter((entry) => entry[2] && trial.outcome !== "failed")
    .flatMap(([what, command]) => [element("p", {}, what), element("code", {}, command)]);
  return shown.length ? [element("h3", {}, "Commands"), ...shown] : [];
}
