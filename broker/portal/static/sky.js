// The sky around the object: which picture, which marks, how near.
"use strict";

(() => {
  const view = document.getElementById("sky-view");
  if (!view) { return; }
  const holder = document.getElementById("sky");
  const words = document.getElementById("sky-words");
  const kind = document.getElementById("sky-kind");
  const [, , width, height] = view.getAttribute("viewBox").split(" ").map(Number);
  let zoom = 1;

  kind.addEventListener("change", () => {
    view.querySelector("image").setAttribute("href", `${holder.dataset.base}${kind.value}?format=png`);
  });

  function near(factor) {
    zoom = Math.min(8, Math.max(1, zoom * factor));
    const [w, h] = [width / zoom, height / zoom];
    view.setAttribute("viewBox", `${(width - w) / 2} ${(height - h) / 2} ${w} ${h}`);
    view.dataset.zoom = zoom;
    for (const bar of view.querySelectorAll(".bar")) { bar.toggleAttribute("hidden", zoom > 1); }
  }

  document.getElementById("sky-in").addEventListener("click", () => near(2));
  document.getElementById("sky-out").addEventListener("click", () => near(0.5));
  for (const box of document.querySelectorAll(".sky-layer")) {
    box.addEventListener("change", () => {
      for (const mark of view.querySelectorAll(`.layer-${box.value}`)) { mark.classList.toggle("off", !box.checked); }
    });
  }
  for (const mark of view.querySelectorAll(".mark")) {
    const say = () => { words.textContent = mark.getAttribute("aria-label"); };
    mark.addEventListener("focus", say);
    mark.addEventListener("mouseenter", say);
  }
})();
