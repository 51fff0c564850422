// The card of the chosen port: who holds it, since when and for how long, what can be done, and what happened to the port before.
import { $, button, el, timeOf } from "./dom.js";
import { badge, leftOf } from "./holders.js";
import { who, wordsOfKind } from "./feed.js";
import { ports as portsText } from "./format.js";
import { wordsOf } from "./api.js";

const PAGE = 20; // entries of the history that are read at once

// valueOf shows the value of a label: an address of the web as a link, all else as text.
function valueOf(text) {
  if (!/^https?:\/\//i.test(text) || !URL.canParse(text)) return text;
  return el("a", { href: text, target: "_blank", rel: "noopener noreferrer" }, text);
}

export class Card {
  #box = $("card");
  #facts = $("card-facts");
  #history = $("card-history");
  #api;
  #now;
  #onRelease;
  #shown = ""; // what the facts show
  #place = null; // the service and port whose history is shown
  #reading = null; // ends the reading of a history that nobody wants any more
  #readingLabels = null; // the same of labels

  constructor(api, now, onRelease, onClose) {
    this.#api = api;
    this.#now = now;
    this.#onRelease = onRelease;
    $("card-close").addEventListener("click", onClose);
  }

  // show shows a port. path is the service's, entry the port's, or null if it is free. A port that drains is outside of the ranges.
  show(path, port, entry, isDraining) {
    this.#box.hidden = port === null;
    if (port === null) {
      this.#place = null;
      this.#shown = "";
      this.#reading?.abort();
      this.#readingLabels?.abort();
      return;
    }
    $("card-port").textContent = entry ? portsText(entry.start, entry.end) : `${port}`;
    const shows = JSON.stringify([path, port, entry, isDraining]);
    if (shows !== this.#shown) {
      this.#drawFacts(entry, isDraining);
      this.#readLabels(path, entry);
    }
    this.#shown = shows;
    const left = $("card-left");
    if (left && entry) left.textContent = leftOf(entry, this.#now());
    const place = `${path} ${port}`;
    if (place !== this.#place) {
      this.#place = place;
      this.#read(path, port);
    }
  }

  // reread reads the history anew, after an event of the port.
  reread(path, port) {
    if (this.#place === `${path} ${port}`) this.#read(path, port);
  }

  #drawFacts(entry, isDraining) {
    const fact = (term, value) => (value ? [el("dt", {}, term), el("dd", {}, value)] : []);
    const isHeld = entry?.state === "allocated";
    const hadFocus = this.#facts.contains(document.activeElement);
    this.#facts.replaceChildren(
      el("p", { className: "card-state" }, badge(entry, isDraining), entry?.end > entry?.start && entry.name ? el("span", { className: "quiet" },
        `a block of ${entry.end - entry.start + 1} ports`) : null),
      el("dl", {},
        fact("Name", entry?.name && el("span", { className: "name" }, entry.name)),
        fact("Owner", entry?.owner && el("span", { className: "name" }, entry.owner)),
        fact("Since", entry?.created ? timeOf(entry.created) : null),
        fact(isHeld && entry.until === null ? "Lasts" : "Time left",
          entry && el("span", { id: "card-left" }, leftOf(entry, this.#now()))),
        fact("Ends", entry?.until ? timeOf(entry.until) : null)),
      ...(isHeld ? [button("Release…", () => this.#onRelease(entry), { id: "card-release", className: "danger" })] : []));
    if (hadFocus) ($("card-release") ?? $("card-close")).focus();
  }

  // readLabels adds the labels of a holder, which are on no map.
  async #readLabels(path, entry) {
    this.#readingLabels?.abort();
    if (!entry?.name) return;
    this.#readingLabels = new AbortController();
    const { signal } = this.#readingLabels;
    const list = entry.state === "allocated" ? "ports" : "offers";
    const held = await this.#api.all(`${path}/${list}`, { name: entry.name }, signal).catch(() => []); // nothing depends on them
    const labels = Object.entries(held.find((holder) => holder.port === entry.start)?.labels ?? {});
    if (signal.aborted || !labels.length) return;
    this.#facts.querySelector("dl").append(el("dt", {}, "Labels"), el("dd", {}, el("ul", { id: "card-labels" },
      labels.map(([key, value]) => el("li", {}, el("span", { className: "quiet" }, `${key} `), valueOf(value))))));
  }

  async #read(path, port) {
    this.#reading?.abort();
    this.#reading = new AbortController();
    const { signal } = this.#reading;
    try {
      const { body, next } = await this.#api.page(`${path}/history`, { port, limit: PAGE }, signal);
      if (!signal.aborted) this.#history.replaceChildren(...this.#entries(path, body, next, signal));
    } catch (error) {
      if (!signal.aborted) this.#history.replaceChildren(el("li", { className: "empty" }, wordsOf(error)));
    }
  }

  #entries(path, entries, next, signal) {
    if (!entries.length) return [el("li", { className: "empty" }, "No history is recorded.")];
    const lines = entries.map((entry) => el("li", { className: `event is-${entry.event}` },
      timeOf(Date.parse(entry.time)),
      el("span", { className: "event-what" },
        el("span", { className: "event-kind" }, wordsOfKind(entry.event)),
        entry.name ? who(entry) : null,
        entry.expired ? el("span", { className: "quiet" }, "its lease ended ", timeOf(Date.parse(entry.expired))) : null)));
    if (next) {
      const more = el("li", {}, button("Earlier…", async () => {
        try {
          const page = await this.#api.page(`${path}/history`, next, signal);
          if (!signal.aborted) more.replaceWith(...this.#entries(path, page.body, page.next, signal));
        } catch (error) {
          if (!signal.aborted) more.replaceChildren(wordsOf(error));
        }
      }));
      lines.push(more);
    }
    return lines;
  }
}
