// What the cluster told lately.

import { use } from "../collection.js";
import { h } from "../dom.js";
import { EVENTS } from "../kinds.js";
import { eventTable, unready } from "../parts.js";
import { isWanted, settings } from "../settings.js";

export function eventsView() {
  const events = use(EVENTS);
  const shown = events.items.filter((event) => isWanted(event, event.reason, event.message, event.type, event.involvedObject.kind, event.involvedObject.name));
  const nothing = settings.search || settings.namespace ? "No event matches the namespace and the search." : "None in the last hour.";
  return [h("h1", { key: "title" }, "Events"), h("section", { class: "card", key: "events" }, unready(events, "events") ?? eventTable("Events", shown, nothing, true))];
}
