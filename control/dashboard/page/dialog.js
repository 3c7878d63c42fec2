// Questions before something is done, and what came of it.

import { h, patch } from "./dom.js";

const MESSAGE_MS = 8000;

// Asks `title` with `fields` in a dialog; gives the FormData when it is confirmed, null when it is not.
export function ask(title, confirm, ...fields) {
  const before = document.activeElement;
  const dialog = document.createElement("dialog");
  document.body.append(dialog);
  return new Promise((resolve) => {
    const submit = (event) => {
      event.preventDefault();
      const data = new FormData(event.target);
      dialog.returnValue = "yes";
      resolve(data);
      dialog.close();
    };
    const close = () => {
      resolve(null);
      dialog.remove();
      before?.focus();
    };
    dialog.addEventListener("close", close);
    dialog.setAttribute("aria-labelledby", "dialog-title");
    patch(dialog, [
      h(
        "form",
        { on: { submit } },
        h("h2", { id: "dialog-title" }, title),
        fields,
        h(
          "div",
          { class: "buttons" },
          h("button", { type: "button", on: { click: () => dialog.close() } }, "Cancel"),
          h("button", { type: "submit", class: "primary" }, confirm),
        ),
      ),
    ]);
    dialog.showModal();
    dialog.querySelector("input")?.select();
  });
}

// Says something for a while, to eyes and screen readers.
export function tell(text, tone = "good") {
  const message = document.createElement("p");
  message.className = `message ${tone}`;
  message.textContent = text;
  document.getElementById("messages").append(message);
  setTimeout(() => message.remove(), MESSAGE_MS);
}

// Does something and says how it went.
export async function doing(what, work) {
  try {
    await work();
    tell(what);
  } catch (error) {
    tell(`${error.message} ${error.advice ?? ""}`, "bad");
  }
}
