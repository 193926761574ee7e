// Shows the cutouts of the chosen epoch, with arrows to north and east.
"use strict";

(() => {
  const holder = document.getElementById("cutouts");
  const epoch = document.getElementById("cut-epoch");
  const stretch = document.getElementById("cut-stretch");
  const map = document.getElementById("cut-map");
  const images = document.getElementById("cut-images");
  const words = document.getElementById("cut-words");
  const SVG = "http://www.w3.org/2000/svg";
  let asked = 0;

  const alertBase = (name) => `${holder.dataset.prefix}/alerts/${encodeURIComponent(holder.dataset.survey)}/${encodeURIComponent(name)}`;

  function arrows(north, east) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "-50 -50 100 100");
    svg.setAttribute("aria-hidden", "true");
    // The corner of the two arrows stands so that both lie inside.
    const cx = -15 * (north[0] + east[0]), cy = 15 * (north[1] + east[1]);
    for (const [name, [dx, dy]] of [["N", north], ["E", east]]) {
      const line = document.createElementNS(SVG, "line");
      const text = document.createElementNS(SVG, "text");
      for (const [key, value] of [["x1", cx], ["y1", cy], ["x2", cx + 34 * dx], ["y2", cy - 34 * dy]]) { line.setAttribute(key, value); }
      text.setAttribute("x", cx + 45 * dx);
      text.setAttribute("y", cy - 45 * dy);
      text.textContent = name;
      svg.append(line, text);
    }
    return svg;
  }

  function figure(row, name) {
    const made = document.createElement("figure");
    const image = document.createElement("div");
    const caption = document.createElement("figcaption");
    image.className = row.present ? "image" : "image none";
    caption.textContent = `${row.kind} `;
    if (row.present) {
      const picture = document.createElement("img");
      const query = new URLSearchParams({ format: "png", stretch: stretch.value, colorMap: map.value });
      picture.src = `${alertBase(name)}/cutouts/${row.kind}?${query}`;
      picture.alt = `${row.kind} cutout`;
      image.append(picture);
      if (row.north && row.east) { image.append(arrows(row.north, row.east)); }
      const file = document.createElement("a");
      file.href = `${alertBase(name)}/cutouts/${row.kind}?format=fits`;
      file.textContent = "FITS";
      caption.append(file);
    } else {
      image.textContent = row.problem ?? "not in the packet";
    }
    made.append(image, caption);
    return made;
  }

  async function show(name) {
    const mine = ++asked;
    holder.dataset.alert = name;
    document.getElementById("cut-alert").textContent = name;
    document.getElementById("cut-packet").href = `/alerts/${encodeURIComponent(holder.dataset.survey)}/${encodeURIComponent(name)}/packet`;
    try {
      const answer = await fetch(`${alertBase(name)}/cutouts`);
      const body = await answer.json();
      if (mine !== asked) { return; } // another epoch was chosen meanwhile
      if (!answer.ok) { throw new Error(body.error); }
      images.replaceChildren(...body.data.map((row) => figure(row, name)));
      words.textContent = body.data.some((row) => row.present && !row.north) ? "The cutouts do not say where north is." : "";
    } catch (error) {
      if (mine === asked) { images.replaceChildren(); words.textContent = error.message; }
    }
  }

  epoch.addEventListener("change", () => {
    show(epoch.value);
    document.dispatchEvent(new CustomEvent("epoch-chosen", { detail: epoch.value }));
  });
  stretch.addEventListener("change", () => show(holder.dataset.alert));
  map.addEventListener("change", () => show(holder.dataset.alert));
  document.addEventListener("epoch", (event) => {
    epoch.value = event.detail;
    show(event.detail);
  });
  for (const made of images.querySelectorAll("figure[data-north]")) {
    const [north, east] = [made.dataset.north, made.dataset.east].map((v) => v.split(" ").map(Number));
    made.querySelector(".image").append(arrows(north, east));
  }
})();
