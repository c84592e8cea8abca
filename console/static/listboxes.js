// Between a list of choices and its choices the framework puts what scrolls, and lets that be focused: who has the page
// read to them would hear of a list without choices. As a group it may stand there.
new MutationObserver(() => {
  for (const between of document.querySelectorAll('[role="listbox"] > [tabindex]:not([role])')) between.setAttribute("role", "group");
}).observe(document.documentElement, { childList: true, subtree: true });
