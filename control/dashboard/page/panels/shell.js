// A shell in a container: a terminal (xterm.js) over the protocol of `kubectl exec`, v5.channel.k8s.io. Each binary message begins with
// its channel: 0 what is typed, 1 and 2 what the shell writes, 3 how it ended, 4 the terminal's size.

import { openSocket } from "../api.js";
import { h } from "../dom.js";
import { podPath } from "../kinds.js";
import { go, to } from "../route.js";
import { FitAddon } from "../vendor/addon-fit.mjs";
import { Terminal } from "../vendor/xterm.mjs";

const [STDIN, STDOUT, STDERR, OUTCOME, SIZE] = [0, 1, 2, 3, 4];
// Most images have one of them.
const COMMAND = ["sh", "-c", "TERM=xterm-256color; export TERM; command -v bash >/dev/null 2>&1 && exec bash || exec sh"];

let attempt = 0;
let forScreenReader = false;

export function shellPanel(pod, asked) {
  const { namespace, name, uid } = pod.metadata;
  const all = pod.spec.containers.map((it) => it.name);
  const container = all.includes(asked) ? asked : all[0];
  const choose = (event) => go(`${to("pods", namespace, name, "shell")}?container=${encodeURIComponent(event.target.value)}`);
  const again = () => {
    attempt += 1;
    dispatchEvent(new Event("redraw"));
  };
  const change = (event) => {
    forScreenReader = event.target.checked;
    again();
  };
  return h(
    "section",
    { class: "card", key: "shell", "aria-label": "Shell" },
    h(
      "div",
      { class: "bar" },
      h("label", null, "Container ", h("select", { value: container, on: { change: choose } }, all.map((it) => h("option", { value: it, key: it }, it)))),
      h("button", { type: "button", on: { click: again } }, "Start again"),
      h("label", null, h("input", { type: "checkbox", checked: forScreenReader, on: { change } }), " for a screen reader"),
      h("span", { class: "quiet" }, "Shift+Esc leaves the terminal."),
    ),
    h("div", { class: "shell", key: [uid, container, attempt].join(), mount: (element) => start(element, namespace, name, container) }),
  );
}

function start(element, namespace, name, container) {
  const terminal = new Terminal({
    cursorBlink: true,
    fontFamily: "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace",
    fontSize: 13,
    screenReaderMode: forScreenReader,
    scrollback: 5000,
    theme: { background: "#10191d", foreground: "#d8e2e4", cursor: "#3bc9db" },
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.open(element);
  terminal.attachCustomKeyEventHandler((event) => {
    if (event.key !== "Escape" || !event.shiftKey) return true;
    document.querySelector(".tabs a")?.focus();
    return false;
  });
  const socket = connect(terminal, namespace, name, container);
  const observer = new ResizeObserver(() => fit.fit());
  observer.observe(element);
  terminal.focus();
  return () => {
    observer.disconnect();
    socket.close();
    terminal.dispose();
  };
}

function connect(terminal, namespace, name, container) {
  const query = new URLSearchParams({ container, stdin: true, stdout: true, tty: true });
  for (const word of COMMAND) query.append("command", word);
  const socket = openSocket(`${podPath(namespace, name)}/exec?${query}`, ["v5.channel.k8s.io"]);
  socket.binaryType = "arraybuffer";
  const encoder = new TextEncoder();
  const send = (channel, bytes) => {
    if (socket.readyState !== WebSocket.OPEN) return;
    const message = new Uint8Array(bytes.length + 1);
    message[0] = channel;
    message.set(bytes, 1);
    socket.send(message);
  };
  const tellSize = () => send(SIZE, encoder.encode(JSON.stringify({ Width: terminal.cols, Height: terminal.rows })));
  let ended = false;
  let opened = false;
  socket.onopen = () => {
    opened = true;
    tellSize();
  };
  socket.onmessage = ({ data }) => {
    const bytes = new Uint8Array(data);
    if (bytes[0] === STDOUT || bytes[0] === STDERR) terminal.write(bytes.subarray(1));
    if (bytes[0] === OUTCOME) {
      ended = true;
      const { status, message } = JSON.parse(new TextDecoder().decode(bytes.subarray(1)));
      terminal.write(`\r\n[The shell has ended${status === "Success" ? "" : `: ${message}`}.]\r\n`);
    }
  };
  socket.onclose = () => {
    if (ended) return;
    const why = opened ? "The connection broke." : "No shell was started: the pod must run, and you must be allowed to create pods/exec.";
    terminal.write(`\r\n[${why}]\r\n`);
  };
  terminal.onData((text) => send(STDIN, encoder.encode(text)));
  terminal.onBinary((text) => send(STDIN, Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
  terminal.onResize(tellSize);
  return socket;
}

// The page's policy forbids style elements and style attributes, into which the terminal writes its rules. From here on elements take
// them as sheets and properties set by script, which the policy allows.
const createElement = document.createElement.bind(document);
document.createElement = (tag, options) => (tag === "style" ? sheet() : styled(createElement(tag, options)));

// Stands for a style element; its rules go with it.
function sheet() {
  const rules = new CSSStyleSheet();
  document.adoptedStyleSheets.push(rules);
  const element = createElement("span");
  element.hidden = true;
  Object.defineProperty(element, "textContent", { set: (text) => rules.replaceSync(text) });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((other) => other !== rules);
    Element.prototype.remove.call(element);
  };
  return element;
}

function styled(element) {
  element.setAttribute = (name, value) => {
    if (name === "style") element.style.cssText = value;
    else Element.prototype.setAttribute.call(element, name, value);
  };
  return element;
}
