// What the framework leaves undone for whoever has a page read to them, or goes through it by keyboard.
(() => {
  let last = null; // what had the focus before a dialog took it

  const settle = () => {
    // What scrolls stands between a list of choices and its choices, and can be focused: as a group it may stand there.
    for (const between of document.querySelectorAll('[role="listbox"] > [tabindex]:not([role])')) between.setAttribute("role", "group");
    // Under an open dialog nothing can be reached, or be read; afterwards one goes on where one was.
    const page = document.getElementById("app");
    const isCovered = document.querySelector('.q-dialog[aria-modal="true"]') !== null;
    if (page === null || page.inert === isCovered) return;
    page.inert = isCovered;
    const at = document.activeElement;
    if (!isCovered && (at === document.body || at?.closest(".q-dialog"))) last?.focus();
  };

  document.addEventListener("focusin", (event) => {
    // Of a button that is clicked, the framework has a part focused that nobody can go to.
    if (document.getElementById("app")?.contains(event.target)) last = event.target.closest('a[href], button, [tabindex="0"]') ?? event.target;
  });
  new MutationObserver(settle).observe(document.documentElement, { childList: true, subtree: true });
})();
