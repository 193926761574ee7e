// A file that is chosen is shown in the form's text field, and sent from there.
"use strict";

for (const input of document.querySelectorAll("input[type=file][data-into]")) {
  input.addEventListener("change", async () => {
    const file = input.files[0];
    if (file) { document.getElementById(input.dataset.into).value = await file.text(); }
  });
}
