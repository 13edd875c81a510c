// The picture answers: pointer, brush along the horizontal axis, keyboard.

const REACH = 18; // pixels from the pointer to the mark that it means

function makeChart(report, actions) {
  const svg = shape("svg", { role: "group" });
  const tip = element("div", { class: "tip", hidden: "" });
  const root = element("div", { class: "chart" }, svg, tip);
  let view = null; // what was drawn last

  function near(trial) {
    view.overlay.replaceChildren();
    svg.querySelectorAll(".near").forEach((mark) => mark.classList.remove("near"));
    tip.hidden = trial === null;
    if (trial === null) return;
    const x = view.x(trial.x);
    const y = view.y(trial.y);
    view.marks.get(trial.trial).classList.add("near");
    if (trial.low !== null) view.overlay.append(interval(trial, view, "near"));
    tip.textContent = trial.summary;
    const right = x > view.width / 2;
    tip.style.left = right ? "auto" : `${x + 14}px`;
    tip.style.right = right ? `${view.width - x + 14}px` : "auto";
    tip.style.top = `${Math.min(y + 10, view.height - 90)}px`;
  }

  function nearest(event) {
    const box = svg.getBoundingClientRect();
    let best = null;
    let distance = REACH;
    for (const trial of view.drawn) {
      const dx = view.x(trial.x) - (event.clientX - box.left);
      const dy = view.y(trial.y) - (event.clientY - box.top);
      if (Math.hypot(dx, dy) < distance) [best, distance] = [trial, Math.hypot(dx, dy)];
    }
    return best;
  }

  // A drag chooses a range; a press without one is a click.
  function brush(start) {
    const left = svg.getBoundingClientRect().left;
    const from = start.clientX - left;
    const box = shape("rect", { class: "brush", y: MARGIN.top, height: view.y.height });
    const inside = (value) => Math.min(Math.max(value, MARGIN.left), view.width - MARGIN.right);
    let to = from;
    const move = (event) => {
      to = event.clientX - left;
      if (Math.abs(to - from) < 6) return;
      const [a, b] = [inside(Math.min(from, to)), inside(Math.max(from, to))];
      fill(box, { x: a, width: b - a }, []);
      if (!box.parentNode) svg.append(box);
    };
    const end = () => {
      window.removeEventListener("pointermove", move);
      window.removeEventListener("pointerup", end);
      window.removeEventListener("pointercancel", end);
      if (!box.parentNode) return;
      box.remove();
      view.dragged = true;
      const ends = [inside(Math.min(from, to)), inside(Math.max(from, to))];
      actions.brush(...ends.map((pixel) => view.x.invert(pixel)));
    };
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", end);
    window.addEventListener("pointercancel", end);
  }

  function toTrial(trial) {
    if (!trial) return;
    svg.querySelectorAll('.mark[tabindex="0"]').forEach((m) => m.setAttribute("tabindex", -1));
    const mark = view.marks.get(trial.trial);
    mark.setAttribute("tabindex", 0);
    mark.focus();
  }

  function press(event) {
    const { drawn } = view;
    const here = drawn.indexOf(trialOf(event.target));
    const steps = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: drawn.length - 1 };
    if (here < 0) return;
    if (event.key === "Enter" || event.key === " ") actions.open(drawn[here], true);
    else if (event.key in steps) toTrial(drawn[steps[event.key]]);
    else return;
    event.preventDefault();
  }

  const trialOf = (node) => {
    const mark = node.closest(".mark");
    return mark ? view.drawn.find((trial) => trial.trial === Number(mark.dataset.trial)) : null;
  };
  svg.addEventListener("pointerdown", (event) => { view.dragged = false; brush(event); });
  svg.addEventListener("pointermove", (event) => near(nearest(event)));
  svg.addEventListener("pointerleave", () => near(null));
  svg.addEventListener("focusin", (event) => near(trialOf(event.target)));
  svg.addEventListener("focusout", () => near(null));
  svg.addEventListener("keydown", press);
  svg.addEventListener("dblclick", () => actions.brush(null, null));
  svg.addEventListener("click", (event) => {
    const trial = trialOf(event.target) ?? nearest(event);
    if (trial && !view.dragged) actions.open(trial, false);
  });

  return {
    root,
    // Draw some of the trials; `range` bounds the horizontal axis where its ends are not null.
    draw(trials, range, chosen) {
      view = layOut(report, trials, range, root.clientWidth || 800);
      fill(svg, { viewBox: `0 0 ${view.width} ${view.height}`, height: view.height }, []);
      svg.setAttribute("aria-label", `${report.y.label} against ${report.x.label}: `
        + `${view.drawn.length} trials; the arrow keys move between them, Enter opens one`);
      svg.replaceChildren(...axes(report, view), ...staircase(report, view));
      for (const trial of view.drawn) {
        if (trial.front && trial.low !== null) svg.append(interval(trial, view, "front"));
      }
      const first = view.drawn.find((trial) => trial.trial === chosen) ?? view.drawn[0];
      for (const trial of [...view.drawn].sort((a, b) => a.front - b.front)) {
        const mark = shape("path", {
          d: outline(trial, trial.front ? 6 : 4.5),
          transform: `translate(${view.x(trial.x).toFixed(1)} ${view.y(trial.y).toFixed(1)})`,
          class: markClass(trial) + (trial.trial === chosen ? " chosen" : ""),
          role: "button", "aria-label": trial.summary, "data-trial": trial.trial,
          tabindex: trial === first ? 0 : -1,
        });
        view.marks.set(trial.trial, mark);
        svg.append(mark);
      }
      svg.append(...labels(view), view.overlay);
      tip.hidden = true;
    },
    focus: (trial) => { if (view.marks.has(trial.trial)) toTrial(trial); },
  };
}
