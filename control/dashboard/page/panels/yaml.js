// An object as YAML, to read and copy.

import { tell } from "../dialog.js";
import { h } from "../dom.js";

let withManagedFields = false;

export function yamlPanel(object, kind, api) {
  const { apiVersion, kind: said, metadata, ...rest } = object;
  const { managedFields, ...shownMetadata } = metadata;
  const version = api.replace(/^\/apis?\//, "");
  const text = yaml({ apiVersion: apiVersion ?? version, kind: said ?? kind, metadata: withManagedFields ? metadata : shownMetadata, ...rest });
  const copy = () => navigator.clipboard.writeText(text).then(() => tell("Copied."), () => tell("The browser did not allow it: select the text and copy it.", "bad"));
  const toggle = (event) => {
    withManagedFields = event.target.checked;
    dispatchEvent(new Event("redraw"));
  };
  return h(
    "section",
    { class: "card", key: "yaml", "aria-label": "YAML" },
    h(
      "div",
      { class: "bar" },
      h("button", { type: "button", on: { click: copy } }, "Copy"),
      managedFields && h("label", null, h("input", { type: "checkbox", checked: withManagedFields, on: { change: toggle } }), " with who owns which fields"),
    ),
    h("pre", { class: "text", tabindex: "0", "aria-label": "YAML" }, text),
  );
}

// Writes a JSON value as YAML 1.2 that older parsers read alike.
export function yaml(value) {
  return block(value, "").replace(/^\n/, "") + "\n";
}

function block(value, indent) {
  if (Array.isArray(value)) {
    if (value.length === 0) return " []";
    return value.map((item) => `\n${indent}-${nested(item, `${indent}  `)}`).join("");
  }
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value);
    if (entries.length === 0) return " {}";
    return entries.map(([key, item]) => `\n${indent}${scalar(key)}:${block(item, Array.isArray(item) ? indent : `${indent}  `)}`).join("");
  }
  return ` ${typeof value === "string" ? text(value, indent) : String(value)}`;
}

// What follows the dash of a list: a map begins on its line.
function nested(item, indent) {
  const written = block(item, indent);
  return written.startsWith("\n") ? ` ${written.slice(1 + indent.length)}` : written;
}

function text(value, indent) {
  const isBlock = value.includes("\n") && !/^\s|[^\S\n]\n|[\x00-\x09\x0b-\x1f\x7f\u0085\u2028\u2029]/.test(value) && value.trim() !== "";
  if (!isBlock) return scalar(value);
  const ends = /\n*$/.exec(value)[0].length;
  const lines = value.replace(/\n$/, "").split("\n");
  return `|${ends === 0 ? "-" : ends === 1 ? "" : "+"}\n${lines.map((line) => (line ? indent + line : "")).join("\n")}`;
}

// Plain where nobody could read it as anything else.
function scalar(value) {
  const isPlain = /^[A-Za-z_/][\w./@%+-]*(?:[ :=,][\w./@%+=-]+)*$/.test(value) && !/^(?:true|false|null|yes|no|on|off|y|n)$/i.test(value) && !value.endsWith(":");
  return isPlain ? value : JSON.stringify(value);
}
