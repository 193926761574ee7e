// Asks the server for the periodogram, draws it, and folds by the period that is chosen.
"use strict";

(() => {
  const button = document.getElementById("find-period");
  const holder = document.getElementById("periodogram");
  const words = document.getElementById("period-words");
  const fold = document.getElementById("lc-period");
  const SVG = "http://www.w3.org/2000/svg";
  const WIDTH = 700, HEIGHT = 160, LEFT = 50, BOTTOM = 34, TOP = 8, RIGHT = 10;

  const make = (name, attributes, parent) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) { element.setAttribute(key, value); }
    parent.append(element);
    return element;
  };

  function foldBy(period) {
    fold.value = String(Number(period.toPrecision(7)));
    fold.dispatchEvent(new Event("input"));
  }

  function chance(value) {
    if (value >= 0.01) { return value.toFixed(2); }
    return value > 1e-12 ? value.toExponential(0) : "below 1e-12";
  }

  function draw(found) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", "Periodogram: power by frequency; the peaks are listed below");
    const [low, high] = [Math.log(found.frequency[0]), Math.log(found.frequency.at(-1))];
    const top = Math.max(...found.power, 1e-9);
    const x = (f) => LEFT + (Math.log(f) - low) / (high - low || 1) * (WIDTH - LEFT - RIGHT);
    const y = (p) => HEIGHT - BOTTOM - p / top * (HEIGHT - BOTTOM - TOP);
    for (let d = Math.ceil(Math.log10(1 / found.frequency.at(-1))); 10 ** d <= 1 / found.frequency[0]; d += 1) {
      const at = x(10 ** -d);
      make("line", { class: "axis", x1: at, x2: at, y1: TOP, y2: HEIGHT - BOTTOM }, svg);
      make("text", { x: at, y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, svg).textContent = `${Number((10 ** d).toPrecision(1))} d`;
    }
    for (const p of [0, top]) {
      make("text", { x: LEFT - 6, y: y(p) + 4, "text-anchor": "end" }, svg).textContent = p.toFixed(2);
    }
    make("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, svg).textContent = "period";
    const points = found.frequency.map((f, i) => `${x(f).toFixed(1)} ${y(found.power[i]).toFixed(1)}`);
    make("path", { class: "power", d: `M${points.join("L")}` }, svg);
    const list = document.createElement("div");
    list.className = "tools";
    for (const peak of found.peaks) {
      const one = document.createElement("button");
      one.type = "button";
      one.className = "small peak";
      one.textContent = `${Number(peak.period.toPrecision(6))} d`;
      one.title = `power ${peak.power.toFixed(3)}, by chance ${chance(peak.falseAlarm)}`;
      one.addEventListener("click", () => {
        foldBy(peak.period);
        words.textContent = `Folded by ${one.textContent}: power ${peak.power.toFixed(3)}, by chance alone ${chance(peak.falseAlarm)}.`;
      });
      list.append(one);
    }
    holder.replaceChildren(svg, list);
    holder.hidden = false;
  }

  button.addEventListener("click", async () => {
    button.disabled = true;
    words.textContent = "Asking …";
    try {
      const answer = await fetch(button.dataset.from, { headers: { Accept: "application/json" } });
      const body = await answer.json();
      if (!answer.ok) { throw new Error(body.error); }
      draw(body);
      words.textContent = `Of ${body.epochs} epochs: choose a period to fold by.`;
    } catch (error) {
      holder.hidden = true;
      words.textContent = error.message;
    } finally {
      button.disabled = false;
    }
  });
})();
