// The frame of the page: navigation, namespace, search, theme; and which view is shown.

import { forgetAll, forgetUnused, onChange, troubles, use } from "./collection.js";
import { ApiError, get, post, setToken, token } from "./api.js";
import { h, patch } from "./dom.js";
import { NAMESPACES } from "./kinds.js";
import { problem } from "./parts.js";
import { go, route, to } from "./route.js";
import { applyTheme, nextTheme, setNamespace, settings } from "./settings.js";
import { clusterView } from "./views/cluster.js";
import { eventsView } from "./views/events.js";
import { nodesView } from "./views/nodes.js";
import { podView } from "./views/pod.js";
import { podsView } from "./views/pods.js";
import { signInView } from "./views/signin.js";
import { workloadView } from "./views/workload.js";
import { workloadsView } from "./views/workloads.js";

// Whom Kubernetes takes for the user when nobody signed in.
const ANONYMOUS = "system:anonymous";
// Ages grow by themselves.
const REDRAW_MS = 5000;
const VIEWS = [
  ["cluster", "Cluster", clusterView],
  ["workloads", "Workloads", (address) => (address.parts.length > 2 ? workloadView(address) : workloadsView(address))],
  ["pods", "Pods", (address) => (address.parts.length > 2 ? podView(address) : podsView(address))],
  ["nodes", "Nodes", nodesView],
  ["events", "Events", eventsView],
];

const app = document.getElementById("app");
let user = null;
let signedIn = null;
let refusedToken = null;
let drawing = false;

function redraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function draw() {
  if (signedIn === null) return patch(app, [h("p", { class: "empty" }, "Asking the cluster …")]);
  if (!signedIn) return patch(app, [signInView(signIn, refusedToken)]);
  const address = route();
  const found = VIEWS.find(([name]) => name === (address.parts[0] ?? "cluster")) ?? VIEWS[0];
  document.title = [...address.parts.slice(-1), "Trireme"].join(" – ");
  patch(app, [h("div", { class: "frame" }, side(found[0]), h("div", { class: "page" }, top(), h("main", { id: "main", tabindex: "-1" }, banner(), found[2](address))))]);
  forgetUnused();
}

function side(current) {
  return h(
    "nav",
    { class: "side", "aria-label": "Views" },
    h("a", { class: "brand", href: to("cluster") }, h("img", { src: "icon.svg", alt: "", width: "28", height: "28" }), h("span", null, "Trireme")),
    h(
      "ul",
      null,
      VIEWS.map(([name, title]) => h("li", { key: name }, h("a", { href: to(name), "aria-current": name === current ? "page" : null }, title))),
    ),
  );
}

function top() {
  const all = use(NAMESPACES);
  const choose = (event) => {
    setNamespace(event.target.value);
    redraw();
  };
  const search = (event) => {
    settings.search = event.target.value;
    redraw();
  };
  const themed = { auto: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" }[settings.theme];
  const switchTheme = () => {
    nextTheme();
    redraw();
  };
  return h(
    "header",
    { class: "top" },
    h(
      "label",
      null,
      h("span", { class: "hidden" }, "Namespace"),
      all.error?.code === 403 ? named(choose) : chosen(all, choose),
    ),
    h(
      "label",
      { class: "grow" },
      h("span", { class: "hidden" }, "Search names, labels and texts"),
      h("input", { id: "search", type: "search", placeholder: "Search names, labels, texts   ( / )", autocomplete: "off", value: settings.search, on: { input: search } }),
    ),
    h("span", { class: "user", title: "Who you are to the cluster" }, user ?? ""),
    token() && h("button", { type: "button", on: { click: signOut } }, "Sign out"),
    h("button", { type: "button", id: "theme", on: { click: switchTheme }, "aria-label": `${themed}; switch`, title: themed }, { auto: "◑", light: "☀", dark: "☾" }[settings.theme]),
  );
}

function chosen(all, choose) {
  const names = all.items.map((it) => it.metadata.name).sort();
  const shown = settings.namespace && !names.includes(settings.namespace) ? [settings.namespace, ...names] : names;
  return h(
    "select",
    { id: "namespace", value: settings.namespace, key: "chosen", on: { change: choose } },
    h("option", { value: "", key: "" }, "All namespaces"),
    shown.map((name) => h("option", { value: name, key: name }, name)),
  );
}

// Who may not list the namespaces knows the name of his own.
function named(choose) {
  return h("input", { id: "namespace", key: "named", placeholder: "Namespace", autocomplete: "off", value: settings.namespace, on: { change: choose } });
}

// What could not be read, once for each reason.
function banner() {
  const messages = new Map(troubles().filter((source) => source.loaded || source.error.code === 0).map((source) => [source.error.message, source.error]));
  return [...messages.values()].map((error) => h("div", { key: error.message }, problem(error)));
}

async function start() {
  try {
    user = await whoAmI();
    // A service account's rights are mostly those of its own namespace.
    const [, own] = user?.match(/^system:serviceaccount:([^:]+):/) ?? [];
    if (own && !settings.namespace) setNamespace(own);
    signedIn = true;
  } catch (error) {
    if (error.code === 0) return retryStart(error);
    signedIn = !isOfNobody(error);
    refusedToken = !signedIn && token() ? error.message : null;
  }
  redraw();
}

function retryStart(error) {
  patch(app, [problem(error)]);
  setTimeout(start, 2000);
}

// Whether a refusal says that the server does not know who asks; any other is of somebody who is known.
function isOfNobody(error) {
  return error.code === 401 || (error.code === 403 && error.message.includes(`"${ANONYMOUS}"`));
}

async function whoAmI() {
  try {
    const review = { apiVersion: "authentication.k8s.io/v1", kind: "SelfSubjectReview" };
    const { status } = await post("/apis/authentication.k8s.io/v1/selfsubjectreviews", review);
    if (status.userInfo.username === ANONYMOUS) throw new ApiError(401, "Unauthorized", "Nobody has signed in.");
    return status.userInfo.username;
  } catch (error) {
    if (error.code === 0 || isOfNobody(error)) throw error;
    // Without that API: whoever may read discovery is known, and not by name.
    await get("/api");
    return null;
  }
}

function signIn(text) {
  setToken(text);
  signedIn = null;
  start();
}

function signOut() {
  setToken(null);
  forgetAll();
  signedIn = false;
  refusedToken = null;
  redraw();
}

addEventListener("signed-out", () => {
  if (!signedIn) return;
  forgetAll();
  signedIn = false;
  refusedToken = token() ? "The token is no longer accepted." : null;
  redraw();
});
addEventListener("redraw", redraw);
addEventListener("hashchange", () => {
  settings.search = "";
  draw();
  const main = document.getElementById("main");
  // A view may have put the focus where it is wanted.
  if (!main?.contains(document.activeElement)) main?.focus({ preventScroll: true });
  scrollTo(0, 0);
});
addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, .terminal, dialog");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    document.getElementById("search")?.focus();
  }
});

applyTheme();
onChange(redraw);
setInterval(redraw, REDRAW_MS);
if (!location.hash) go(to("cluster"));
start();
