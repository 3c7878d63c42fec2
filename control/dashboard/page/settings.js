// What the user has set: theme for this browser, namespace and search for this tab.

const THEME = "trireme.theme";
const NAMESPACE = "trireme.namespace";
const THEMES = ["auto", "light", "dark"];

export const settings = {
  theme: THEMES.includes(localStorage.getItem(THEME)) ? localStorage.getItem(THEME) : "auto",
  namespace: sessionStorage.getItem(NAMESPACE) ?? "",
  search: "",
};

export function setTheme(theme) {
  settings.theme = theme;
  localStorage.setItem(THEME, theme);
  applyTheme();
}

export function nextTheme() {
  setTheme(THEMES[(THEMES.indexOf(settings.theme) + 1) % THEMES.length]);
}

export function setNamespace(namespace) {
  settings.namespace = namespace;
  sessionStorage.setItem(NAMESPACE, namespace);
}

export function applyTheme() {
  document.documentElement.dataset.theme = settings.theme;
}

// Whether an object is of the namespace that is looked at, and matches all words that are searched for.
export function isWanted(object, ...texts) {
  const { namespace } = object.metadata;
  if (settings.namespace && namespace && namespace !== settings.namespace) return false;
  return matches(namespace, object.metadata.name, ...texts, ...Object.entries(object.metadata.labels ?? {}).map((pair) => pair.join("=")));
}

export function matches(...texts) {
  const words = settings.search.toLowerCase().split(/\s+/).filter(Boolean);
  const all = texts.filter(Boolean).join(" ").toLowerCase();
  return words.every((word) => all.includes(word));
}
