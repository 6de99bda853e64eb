// Asking before something stops.

/** Ask whether to do what stops something; `verb` is on the button. Returns whether the user confirmed. */
async function confirmed(text, verb) {
  const dialog = $("confirm");
  if (dialog.open) return false;
  setText($("confirm-text"), text);
  setText($("confirm-yes"), verb);
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  return dialog.returnValue === "yes";
}

$("confirm-yes").addEventListener("click", () => $("confirm").close("yes"));
$("confirm-no").addEventListener("click", () => $("confirm").close(""));
