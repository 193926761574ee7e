// Draws an object's epochs: bands, errors, limits, forced fluxes; a point chooses its cutouts.
"use strict";

(() => {
  const holder = document.getElementById("light-curve");
  const data = JSON.parse(document.getElementById("light-curve-data").textContent);
  const words = document.getElementById("lc-words");
  const unit = document.getElementById("lc-unit");
  const fold = document.getElementById("lc-period");
  const SVG = "http://www.w3.org/2000/svg";
  const LEFT = 66, RIGHT = 14, TOP = 14, BOTTOM = 46;
  let WIDTH = 700, HEIGHT = 380; // as wide as there is room: a unit is a pixel of the page
  const BANDS = ["u", "g", "r", "i", "z", "y"];
  const hidden = new Set(); // bands and kinds that are switched off
  let shown = data.shown;
  let range = null; // of time, chosen by a drag

  const make = (name, attributes, parent) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) { element.setAttribute(key, value); }
    if (parent) { parent.append(element); }
    return element;
  };

  // What an epoch is in the chosen unit: value, error, whether it is only a limit. Null: not drawn.
  function place(epoch) {
    if (unit.value === "flux") {
      if (epoch.psfFlux === null) { // five sigma
        return epoch.psfFluxErr === null ? null : { y: 5e-3 * epoch.psfFluxErr, error: 0, limit: true };
      }
      return { y: epoch.psfFlux / 1000, error: (epoch.psfFluxErr ?? 0) / 1000, limit: false };
    }
    // Below three sigma a magnitude says nothing: what is known is that it is fainter than five.
    const isSeen = epoch.mag !== null && !(epoch.psfFlux < 3 * epoch.psfFluxErr);
    if (isSeen) { return { y: epoch.mag, error: epoch.magErr ?? 0, limit: false }; }
    if (!(epoch.psfFluxErr > 0)) { return null; }
    return { y: 31.4 - 2.5 * Math.log10(5 * epoch.psfFluxErr), error: 0, limit: true };
  }

  function ticks(low, high, count) {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= rough);
    const found = [];
    for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) { found.push(v); }
    return [found, Math.max(0, Math.ceil(-Math.log10(step) - 1e-9))];
  }

  function widened(values, part) {
    let low = Math.min(...values), high = Math.max(...values);
    const pad = (high - low || Math.abs(high) * 0.1 || 1) * part;
    return [low - pad, high + pad];
  }

  function mark(group, epoch, limit, x, y) {
    const band = BANDS.indexOf(epoch.band);
    if (limit) { // a triangle that points to where the flux may be
      return make("path", { class: "mark", d: `M${x - 6} ${y - 4}h12l-6 10z` }, group);
    }
    if (epoch.kind === "forced") {
      return make("rect", { class: "mark", x: x - 4, y: y - 4, width: 8, height: 8, "stroke-width": 2 }, group);
    }
    if (band % 2) { return make("circle", { class: "mark", cx: x, cy: y, r: 5 }, group); }
    return make("path", { class: "mark", d: `M${x} ${y - 6.5}l6 6.5l-6 6.5l-6-6.5z` }, group);
  }

  function describe(epoch) {
    const flux = epoch.psfFlux === null ? "no flux" : `${(epoch.psfFlux / 1000).toFixed(3)} ± ${((epoch.psfFluxErr ?? 0) / 1000).toFixed(3)} µJy`;
    const mag = epoch.mag === null ? (epoch.limitingMag === null ? "" : `, fainter than ${epoch.limitingMag.toFixed(2)} mag`) : `, ${epoch.mag.toFixed(3)} ± ${(epoch.magErr ?? 0).toFixed(3)} mag`;
    return `${(epoch.midpointUtc ?? "").slice(0, 19).replace("T", " ")}, ${epoch.band ?? "unknown band"}, ${epoch.kind}: ${flux}${mag}`;
  }

  function choose(epoch) {
    if (!epoch.diaSourceId) { return; }
    shown = epoch.diaSourceId;
    for (const point of holder.querySelectorAll(".point")) {
      point.classList.toggle("chosen", point.dataset.alert === shown);
    }
    document.dispatchEvent(new CustomEvent("epoch", { detail: shown }));
  }

  function move(group, step) { // arrow keys go from point to point
    const points = [...holder.querySelectorAll(".point")];
    const next = points[points.indexOf(group) + step];
    if (next) { next.focus(); }
  }

  function drawPoint(svg, epoch, at, x, y) {
    const group = make("g", { role: "img", "aria-label": describe(epoch) });
    const kind = at.limit ? "limit" : epoch.kind === "forced" ? "forced" : "detection";
    group.setAttribute("class", `point ${kind} b-${epoch.band ?? "none"}${epoch.diaSourceId ? "" : " told"}`);
    group.setAttribute("tabindex", epoch.diaSourceId === shown ? "0" : "-1");
    if (epoch.diaSourceId) { group.dataset.alert = epoch.diaSourceId; group.setAttribute("role", "button"); }
    if (epoch.diaSourceId === shown) { group.classList.add("chosen"); }
    const middle = y(at.y);
    if (at.error) {
      make("line", { x1: x, x2: x, y1: y(at.y - at.error), y2: y(at.y + at.error), stroke: "currentColor", "stroke-width": 1.5 }, group);
    }
    make("circle", { cx: x, cy: middle, r: 12, fill: "transparent", stroke: "none" }, group);
    mark(group, epoch, at.limit, x, middle);
    make("title", {}, group).textContent = describe(epoch);
    group.addEventListener("mouseenter", () => { words.textContent = describe(epoch); });
    group.addEventListener("focus", () => { words.textContent = describe(epoch); });
    group.addEventListener("click", () => choose(epoch));
    group.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(epoch); }
      if (event.key === "ArrowRight") { move(group, 1); }
      if (event.key === "ArrowLeft") { move(group, -1); }
    });
    svg.append(group);
  }

  function draw() {
    WIDTH = Math.max(280, Math.round(holder.clientWidth));
    HEIGHT = Math.round(Math.min(420, Math.max(260, 0.6 * WIDTH)));
    const chosen = data.epochs.filter((e) => !hidden.has(e.band ?? "?") && !hidden.has(e.kind)
      && (range === null || (e.midpointMjdTai >= range[0] && e.midpointMjdTai <= range[1])));
    const period = Number(fold.value) > 0 ? Number(fold.value) : null;
    const start = Math.min(...data.epochs.map((e) => e.midpointMjdTai));
    const phase = (epoch) => ((epoch.midpointMjdTai - start) / period) % 1;
    const placed = chosen.map((epoch) => [epoch, place(epoch)]).filter(([, at]) => at !== null);
    const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group", "aria-label": "Light curve: arrow keys go from point to point, Enter shows its cutouts" });
    holder.querySelector("svg")?.remove();
    holder.prepend(svg);
    if (placed.length === 0) {
      make("text", { x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle" }, svg).textContent = "Nothing to draw in this unit";
      return;
    }
    const [t0, t1] = period ? [-0.05, 2.05] : range ?? widened(placed.map(([e]) => e.midpointMjdTai), 0.04);
    const spread = placed.flatMap(([, at]) => [at.y - at.error, at.y + at.error]);
    const isFlux = unit.value === "flux";
    const [low, high] = widened(isFlux ? [...spread, 0] : spread, 0.06);
    const x = (t) => LEFT + (t - t0) / (t1 - t0) * (WIDTH - LEFT - RIGHT);
    const part = (v) => (v - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
    const y = (v) => (isFlux ? HEIGHT - BOTTOM - part(v) : TOP + part(v));
    drawAxes(svg, { t0, t1, low, high, x, y, isFlux, period });
    for (const [epoch, at] of placed) {
      if (period) { // two cycles, so that what happens at phase 0 is seen whole
        drawPoint(svg, epoch, at, x(phase(epoch)), y);
        drawPoint(svg, epoch, at, x(phase(epoch) + 1), y);
      } else {
        drawPoint(svg, epoch, at, x(epoch.midpointMjdTai), y);
      }
    }
    if (!svg.querySelector('.point[tabindex="0"]')) { svg.querySelector(".point").setAttribute("tabindex", "0"); }
    if (!period) { brush(svg, t0, t1); }
  }

  function drawAxes(svg, { t0, t1, low, high, x, y, isFlux, period }) {
    const [times, tp] = ticks(t0, t1, WIDTH / 130);
    for (const t of times) {
      make("line", { class: "axis", x1: x(t), x2: x(t), y1: TOP, y2: HEIGHT - BOTTOM }, svg);
      make("text", { x: x(t), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, svg).textContent = t.toFixed(tp);
    }
    const [values, vp] = ticks(low, high, 6);
    for (const v of values) {
      make("line", { class: isFlux && Math.abs(v) < 1e-9 ? "zero" : "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(v), y2: y(v) }, svg);
      make("text", { x: LEFT - 8, y: y(v) + 4, "text-anchor": "end" }, svg).textContent = v.toFixed(vp).replace("-", "−");
    }
    make("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, svg).textContent = period ? `phase, of ${period} d` : "MJD (TAI)";
    const label = make("text", { x: 0, y: 0, "text-anchor": "middle", transform: `translate(18 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)` }, svg);
    label.textContent = isFlux ? "difference flux, µJy" : "AB magnitude of the difference";
  }

  function brush(svg, t0, t1) { // drag over the plot to see that time alone
    let start = null, box = null;
    const at = (event) => {
      const frame = svg.getBoundingClientRect();
      return Math.min(WIDTH - RIGHT, Math.max(LEFT, (event.clientX - frame.left) / frame.width * WIDTH));
    };
    const time = (x) => t0 + (x - LEFT) / (WIDTH - LEFT - RIGHT) * (t1 - t0);
    svg.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse" && !event.target.closest(".point")) { start = at(event); }
    });
    svg.addEventListener("pointermove", (event) => {
      if (start === null) { return; }
      box ??= make("rect", { class: "brush", y: TOP, height: HEIGHT - TOP - BOTTOM }, svg);
      box.setAttribute("x", Math.min(start, at(event)));
      box.setAttribute("width", Math.abs(at(event) - start));
    });
    svg.addEventListener("pointerup", (event) => {
      const end = start === null ? null : at(event);
      const from = start;
      start = null;
      box?.remove();
      if (end !== null && Math.abs(end - from) > 8) {
        range = [time(Math.min(from, end)), time(Math.max(from, end))];
        draw();
      }
    });
    svg.addEventListener("pointerleave", () => { start = null; box?.remove(); box = null; });
  }

  function offSwitch(what, text, look) {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    box.dataset.of = what;
    box.addEventListener("change", () => {
      if (box.checked) { hidden.delete(what); } else { hidden.add(what); }
      draw();
    });
    const name = document.createElement("span");
    name.className = look;
    name.textContent = text;
    label.append(box, name);
    return label;
  }

  function legend() {
    const list = document.createElement("div");
    list.className = "legend";
    const present = [...new Set(data.epochs.map((e) => e.band ?? "?"))];
    for (const band of [...BANDS, "?"].filter((b) => present.includes(b))) {
      list.append(offSwitch(band, band, `band band-${band}`));
    }
    const kinds = new Set(data.epochs.map((e) => e.kind));
    const limits = "▽ upper limit, 5σ";
    if (kinds.has("forced")) { list.append(offSwitch("forced", "□ forced", "dim")); }
    if (kinds.has("upper-limit")) {
      list.append(offSwitch("upper-limit", limits, "dim"));
    } else { // a magnitude below three sigma is drawn as one, too
      const note = document.createElement("span");
      note.className = "dim";
      note.textContent = limits;
      list.append(note);
    }
    holder.append(list);
  }

  unit.addEventListener("change", draw);
  fold.addEventListener("input", draw);
  document.getElementById("lc-reset").addEventListener("click", () => { range = null; fold.value = ""; draw(); });
  document.addEventListener("epoch-chosen", (event) => {
    shown = event.detail;
    draw();
  });
  draw();
  legend();
  let width = holder.clientWidth;
  addEventListener("resize", () => {
    if (holder.clientWidth !== width) { width = holder.clientWidth; draw(); }
  });
})();
