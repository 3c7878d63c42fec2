// Requests to the API server that this page came from. Each is made as the user: by the browser's client certificate, by a token of
// this tab, or by the proxy of `ctl dashboard`.

const root = new URL("../", document.baseURI);
const TOKEN = "trireme.token";
// A browser opens six connections to a server by HTTP/1.1, over which many streams do not fit; WebSockets are not counted.
const streamsFit = performance.getEntriesByType("navigation")[0]?.nextHopProtocol === "h2";
const LINE_LETTERS_MAX = 16 * 1024 * 1024;

// What the server refused, or that it was not reached: what, and what to do about it.
export class ApiError extends Error {
  constructor(code, reason, message) {
    super(message);
    Object.assign(this, { code, reason, advice: advice(code) });
  }
}

function advice(code) {
  switch (code) {
    case 0:
      return "Check that the masters run (ctl status) and that this machine reaches them. The page tries again by itself.";
    case 401:
      return "Sign in.";
    case 403:
      return "Ask an administrator for a role that allows it, or sign in as somebody else.";
    case 404:
      return "It may have been deleted meanwhile.";
    case 409:
      return "Somebody else changed it at the same time: look at it again, then repeat.";
    case 422:
      return "Correct the value and repeat.";
    case 429:
      return "The server is busy. The page tries again by itself.";
    case 503:
      return "Most of the masters must run for the cluster to answer: see ctl status.";
    default:
      return "The master's log says more.";
  }
}

export function token() {
  return sessionStorage.getItem(TOKEN);
}

// Keeps the token for as long as this tab is open; none signs out.
export function setToken(text) {
  if (text) sessionStorage.setItem(TOKEN, text);
  else sessionStorage.removeItem(TOKEN);
}

// Sends a request and gives the answer, whose body is still to be read; throws an ApiError for anything but success.
export async function send(method, path, { body, type, signal } = {}) {
  const headers = new Headers({ Accept: "application/json" });
  if (type) headers.set("Content-Type", type);
  if (token()) headers.set("Authorization", `Bearer ${token()}`);
  let response;
  try {
    response = await fetch(url(path), { method, headers, body, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "Unreachable", `${root.host} does not answer.`);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const text = await response.text().catch(() => "");
  let status = {};
  try {
    status = JSON.parse(text);
  } catch {
    // A proxy between may answer in a language of its own.
  }
  const error = new ApiError(response.status, status.reason, status.message || text.slice(0, 300) || response.statusText);
  if (error.code === 401) dispatchEvent(new Event("signed-out"));
  return error;
}

export async function get(path, signal) {
  return (await send("GET", path, { signal })).json();
}

export async function post(path, value) {
  return (await send("POST", path, { body: JSON.stringify(value), type: "application/json" })).json();
}

// A merge patch (RFC 7386).
export async function merge(path, patch) {
  return (await send("PATCH", path, { body: JSON.stringify(patch), type: "application/merge-patch+json" })).json();
}

// Line by line what a stream says, until it ends or is called off; `opened` is called when it begins.
export function lines(path, signal, opened) {
  return streamsFit ? fetched(path, signal, opened) : heard(path, signal, opened);
}

// The same by fetch, also where streams are few: a log is one that is looked at.
export async function* fetched(path, signal, opened = () => {}) {
  const response = await send("GET", path, { signal });
  opened();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      if (rest.length > LINE_LETTERS_MAX) throw new ApiError(0, "TooLong", "The server sent a line without an end.");
      yield* parts;
    }
  } catch (error) {
    if (signal.aborted || error instanceof ApiError) throw error;
    throw new ApiError(0, "Interrupted", `The connection to ${root.host} broke.`);
  } finally {
    reader.cancel().catch(() => {});
  }
  if (rest) yield rest;
}

async function* heard(path, signal, opened) {
  const socket = openSocket(path, []);
  const waiting = [];
  let wake = () => {};
  let ended = false;
  let isOpen = false;
  socket.onopen = () => {
    isOpen = true;
    opened();
  };
  socket.onmessage = ({ data }) => {
    waiting.push(data);
    wake();
  };
  socket.onclose = () => {
    ended = true;
    wake();
  };
  const stop = () => socket.close();
  signal.addEventListener("abort", stop);
  try {
    for (;;) {
      while (waiting.length > 0) yield waiting.shift();
      if (ended) break;
      await new Promise((resolve) => (wake = resolve));
    }
  } finally {
    signal.removeEventListener("abort", stop);
    socket.close();
  }
  if (!isOpen && !signal.aborted) throw new ApiError(0, "Unreachable", `${root.host} does not answer.`);
}

// A WebSocket to a path of the API. Browsers send no Authorization with it: Kubernetes takes a token as a subprotocol.
export function openSocket(path, protocols) {
  const address = url(path);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  if (!token()) return new WebSocket(address, protocols);
  const bytes = new TextEncoder().encode(token());
  const encoded = btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  const plain = protocols.length > 0 ? protocols : ["lines.trireme"];
  return new WebSocket(address, [...plain, `base64url.bearer.authorization.k8s.io.${encoded}`]);
}

function url(path) {
  return new URL(`.${path}`, root);
}
