// Signing in by a token, for browsers without a client certificate.

import { h } from "../dom.js";

export function signInView(signIn, refused) {
  const submit = (event) => {
    event.preventDefault();
    const token = new FormData(event.target).get("token").trim();
    if (token) signIn(token);
  };
  return h(
    "main",
    { class: "signin", id: "main" },
    h("img", { src: "icon.svg", alt: "", width: "56", height: "56" }),
    h("h1", null, "Sign in to Trireme"),
    refused && h("div", { class: "problem", role: "alert" }, refused),
    h(
      "form",
      { on: { submit } },
      h("label", { for: "token" }, "Bearer token"),
      h("input", { id: "token", name: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "token-help" }),
      h("p", { id: "token-help", class: "quiet" }, "It is kept in this tab alone, and forgotten when the tab is closed."),
      h("button", { type: "submit", class: "primary" }, "Sign in"),
    ),
    h("p", { class: "quiet" }, "Without one: ", h("code", null, "ctl dashboard"), " on a machine with a kubeconfig shows this page as you; or ", h("code", null, "kubectl create token NAME"), " makes a token of a service account."),
  );
}
