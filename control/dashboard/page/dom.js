// The page as a function of what is known: `h` describes an element, `patch` makes a parent's children so and leaves alone what is
// already right. Text is always text: nothing here parses markup.

const DESCRIBED = Symbol("described");
const CLEANUP = Symbol("cleanup");

// Elements that will fill themselves, once all of the page is in place: only there have they a size, and can have the focus.
const unfilled = [];
let depth = 0;

// Describes an element. Of `props`, `key` tells siblings apart, `on` holds listeners by event, `mount` is given the element once and
// fills it itself (it may return what to do when the element goes); the others are attributes, or properties where forms need them.
export function h(tag, props, ...children) {
  return { tag, props: props ?? {}, key: props?.key, children: flat(children) };
}

// Makes the children of `parent` as described.
export function patch(parent, children) {
  depth += 1;
  place(parent, children);
  depth -= 1;
  if (depth > 0) return;
  for (const [node, mount] of unfilled.splice(0)) node[CLEANUP] = mount(node);
}

function place(parent, children) {
  const keyed = new Map();
  const unkeyed = [];
  for (const node of parent.childNodes) {
    const key = node[DESCRIBED]?.key;
    if (key === undefined) unkeyed.push(node);
    else keyed.set(key, node);
  }
  const nodes = flat(children).map((wanted) => {
    const node = take(wanted, keyed, unkeyed);
    return node ? update(node, wanted) : create(wanted);
  });
  for (const node of [...keyed.values(), ...unkeyed]) {
    if (node) discard(node);
  }
  let at = parent.firstChild;
  for (const node of nodes) {
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
}

function flat(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (typeof child === "object" ? child : String(child)));
}

// The element that was described so before, taken out of what is left.
function take(wanted, keyed, unkeyed) {
  if (wanted.key !== undefined) {
    const node = keyed.get(wanted.key);
    if (node?.[DESCRIBED].tag !== wanted.tag) return null;
    keyed.delete(wanted.key);
    return node;
  }
  const fits = (node) =>
    node && (typeof wanted === "string" ? node.nodeType === Node.TEXT_NODE : node[DESCRIBED]?.tag === wanted.tag);
  const index = unkeyed.findIndex(fits);
  if (index < 0) return null;
  const [node] = unkeyed.splice(index, 1);
  return node;
}

function create(wanted) {
  if (typeof wanted === "string") return document.createTextNode(wanted);
  const node = document.createElement(wanted.tag);
  node[DESCRIBED] = { tag: wanted.tag, props: {}, key: wanted.key };
  update(node, wanted);
  if (wanted.props.mount) unfilled.push([node, wanted.props.mount]);
  return node;
}

function update(node, wanted) {
  if (typeof wanted === "string") {
    if (node.data !== wanted) node.data = wanted;
    return node;
  }
  const before = node[DESCRIBED].props;
  for (const name of new Set([...Object.keys(before), ...Object.keys(wanted.props)])) {
    set(node, name, before[name], wanted.props[name]);
  }
  node[DESCRIBED] = wanted;
  if (!wanted.props.mount) patch(node, wanted.children);
  // After its children: a select takes only a value that it offers.
  if ("value" in wanted.props && node.value !== wanted.props.value) node.value = wanted.props.value;
  return node;
}

function set(node, name, before, now) {
  if (name === "key" || name === "mount" || name === "value" || before === now) return;
  if (name === "on") {
    for (const [event, listener] of Object.entries(before ?? {})) node.removeEventListener(event, listener);
    for (const [event, listener] of Object.entries(now ?? {})) node.addEventListener(event, listener);
  } else if (name === "checked" || name === "disabled") {
    node[name] = Boolean(now);
  } else if (now === undefined || now === null || now === false) {
    node.removeAttribute(name);
  } else {
    node.setAttribute(name, now === true ? "" : now);
  }
}

function discard(node) {
  node.remove();
  if (node.nodeType !== Node.ELEMENT_NODE) return;
  for (const element of [node, ...node.querySelectorAll("*")]) element[CLEANUP]?.();
}
