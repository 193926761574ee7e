// What all pages share: copy buttons, and tables that sort by a click on a column's head.
"use strict";

function copyText(text, button) {
  const done = () => {
    const words = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = words; }, 1200);
  };
  if (navigator.clipboard) {
    navigator.clipboard.writeText(text).then(done, () => fallBack(text, done));
  } else {
    fallBack(text, done);
  }
}

function fallBack(text, done) { // without https there is no clipboard object
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  if (document.execCommand("copy")) { done(); }
  area.remove();
}

for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", () => {
    let text = button.dataset.copy ?? button.parentElement.querySelector("pre").textContent;
    if ("absolute" in button.dataset) { text = new URL(text, location.href).href; }
    copyText(text, button);
  });
}

function sortBy(table, column, button) {
  const down = button.getAttribute("data-order") === "up";
  for (const other of table.tHead.querySelectorAll("th")) { other.removeAttribute("aria-sort"); }
  button.setAttribute("data-order", down ? "down" : "up");
  button.closest("th").setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = (row) => row.cells[column].textContent.trim();
  const isNumber = table.tHead.rows[0].cells[column].classList.contains("n");
  const value = (row) => {
    const number = parseFloat(key(row).replace(/\s/g, ""));
    return Number.isNaN(number) ? Infinity : number; // null goes last
  };
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => {
    if (!isNumber) { return (down ? -1 : 1) * key(a).localeCompare(key(b)); }
    const [x, y] = [value(a), value(b)];
    if (x === y) { return 0; }
    if (x === Infinity || y === Infinity) { return x === Infinity ? 1 : -1; }
    return (down ? -1 : 1) * (x - y);
  });
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = cell.textContent;
    cell.replaceChildren(button);
    button.addEventListener("click", () => sortBy(table, column, button));
  });
}
