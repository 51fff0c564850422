// The feed: what happened in the pool, newest first, as the stream tells it.
import { $, el, timeOf } from "./dom.js";
import { ports as portsText, portsOf } from "./format.js";

const MOST = 100; // lines that are kept

// How each kind of event reads.
const WORDS = {
  allocated: "allocated", renewed: "renewed by an operator", released: "released", in_use: "found in use", expired: "lease ended",
  defined: "service defined", changed: "service changed", removed: "service removed",
};

export const wordsOfKind = (kind) => WORDS[kind] ?? kind;

// who shows whom an event is about.
export const who = ({ name, owner }) => el("span", { className: "event-who" },
  el("span", { className: "name" }, name), owner ? el("span", { className: "owner" }, owner) : null);

export class Feed {
  #list = $("feed-list");
  #paused = false;
  #missed = 0;
  #link;

  // link makes a link to a port of a service, or to the service if port is null.
  constructor(link) {
    this.#link = link;
    $("feed-pause").addEventListener("click", () => this.#pause());
  }

  clear() {
    this.#list.replaceChildren();
    $("feed-empty").hidden = false;
  }

  // add takes events in the order in which they happened. Of more than are kept, only the last are ever drawn.
  add(events) {
    if (!events.length) return;
    if (this.#paused) {
      this.#missed += events.length;
      $("feed-pause").textContent = `Resume (${this.#missed} new)`;
      return;
    }
    const lines = events.slice(-MOST).map((event) => this.#line(event)).reverse();
    this.#list.prepend(...lines);
    while (this.#list.children.length > MOST) this.#list.lastChild.remove();
    $("feed-empty").hidden = true;
  }

  #line({ kind, data }) {
    const isPort = data.port !== undefined;
    const what = isPort ? portsText(data.port, data.port + (data.count ?? 1) - 1) : data.start ? portsOf(data) : "";
    return el("li", { className: `event is-${kind}` },
      timeOf(Date.parse(data.time)),
      el("span", { className: "event-what" },
        this.#link(data.service, isPort ? data.port : null, `${data.service} ${what}`.trim()),
        el("span", { className: "event-kind" }, wordsOfKind(kind)),
        data.name ? who(data) : null));
  }

  #pause() {
    this.#paused = !this.#paused;
    this.#missed = 0;
    $("feed-pause").textContent = this.#paused ? "Resume" : "Pause";
    $("feed-pause").setAttribute("aria-pressed", String(this.#paused));
  }
}
