// The table of a service: every port that is not free, as the map shows it.
import { $, el, timeOf } from "./dom.js";
import { ports as portsText, span } from "./format.js";
import { stateOf } from "./states.js";
import { Table } from "./table.js";

// leftOf writes how much time an entry has.
export function leftOf(entry, now) {
  if (entry.until === null) return entry.state === "allocated" ? "until released" : "";
  return entry.until > now ? span(entry.until - now) : "over";
}

// holders returns the table. now is the time of the server, state that of the page, drains says whether an entry does, and linkTo
// makes a link to a port.
export function holders(now, state, drains, linkTo) {
  const isCurrent = (entry) => state().port !== null && state().port >= entry.start && state().port <= entry.end;
  return new Table($("holders"), {
    caption: "Ports that are not free",
    sort: { key: "port", isDown: false },
    isCurrent,
    empty: () => (state().search ? "Nothing here matches the search." : "Every port is free."),
    columns: [
      { key: "port", text: "Port", isNumber: true, value: (e) => e.start, cell: (e) => linkTo(e.start, portsText(e.start, e.end)) },
      { key: "state", text: "State", value: (e) => stateOf(e).text, cell: (e) => badge(e, drains(e)) },
      { key: "name", text: "Name", value: (e) => e.name, cell: (e) => el("span", { className: "name" }, e.name ?? "") },
      { key: "owner", text: "Owner", value: (e) => e.owner, cell: (e) => el("span", { className: "name" }, e.owner ?? "") },
      { key: "since", text: "Since", isNumber: true, value: (e) => e.created, cell: (e) => (e.created ? timeOf(e.created) : "") },
      { key: "left", text: "Time left", isNumber: true, value: (e) => e.until, cell: (e) => leftOf(e, now()) },
    ],
  });
}

// badge shows a state with its mark.
export function badge(entry, isDraining) {
  const state = stateOf(entry);
  return el("span", { className: `badge is-${state.key} ${isDraining ? "is-draining" : ""}` }, isDraining ? `${state.text}, draining` : state.text);
}
