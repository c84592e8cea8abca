// Before the first paint: the theme that was chosen, or the system's.
(() => {
  const chosen = document.cookie.match(/(?:^|; )osora_theme=(light|dark)/)?.[1];
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();

// What the button in the bar does. The page's own components are told by a reload of nothing but their class.
window.osoraTheme = () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.cookie = `osora_theme=${theme}; path=/; max-age=31536000; samesite=lax`;
  document.documentElement.dataset.theme = theme;
  window.Quasar?.Dark.set(theme === "dark");
};
