// The search through all services of the pool, for a name or an owner that the page has not read. It reads the allocations of one
// service after the other, and only when somebody asks for it.
import { $, el, timeOf } from "./dom.js";
import { count, ports as portsText } from "./format.js";
import { wordsOf } from "./api.js";
import { matcher } from "./search.js";
import { Table } from "./table.js";

const AT_ONCE = 3; // services that are read at the same time
const MOST = 1000; // matches after which the search ends

export class Everywhere {
  #api;
  #looking = null; // ends the search
  #table;

  // link makes a link to a port of a service.
  constructor(api, link) {
    this.#api = api;
    const text = (key, label) => ({
      key, text: label, value: (a) => a[key] ?? null, cell: (a) => el("span", { className: "name" }, a[key] ?? ""),
    });
    const portsOf = (a) => portsText(a.port, a.port + (a.count ?? 1) - 1);
    this.#table = new Table($("everywhere-table"), {
      caption: "Allocations that match the search",
      sort: { key: "port", isDown: false },
      isCurrent: () => false,
      empty: () => "",
      columns: [
        { key: "port", text: "Port", isNumber: true, value: (a) => a.port, cell: (a) => link(a.service, a.port, portsOf(a)) },
        text("service", "Service"), text("name", "Name"), text("owner", "Owner"),
        { key: "since", text: "Since", isNumber: true, value: since, cell: (a) => timeOf(since(a)) },
      ],
    });
  }

  // clear ends the search and hides what it found.
  clear() {
    this.#looking?.abort();
    this.#looking = null;
    $("everywhere").hidden = true;
  }

  // look searches the pool for a text.
  async look(pool, text) {
    this.clear();
    const matches = matcher(text);
    if (!matches) return;
    this.#looking = new AbortController();
    const { signal } = this.#looking;
    const found = [];
    const services = [...pool.services];
    $("everywhere").hidden = false;
    const work = async () => {
      while (services.length && found.length < MOST && !signal.aborted) {
        const { name } = services.shift();
        found.push(...(await this.#api.all(`${pool.pathOf(name)}/ports`, {}, signal)).filter((a) => isMatch(matches, a)));
        if (signal.aborted) return;
        this.#say(`Looking… ${count(services.length)} services to go.`);
      }
    };
    this.#say("Looking…");
    try {
      await Promise.all(Array.from({ length: AT_ONCE }, work));
      this.#table.show(found);
      const more = found.length >= MOST ? ", and maybe more" : "";
      this.#say(found.length ? `${count(found.length)} found${more}.` : "No allocation matches.");
    } catch (error) {
      if (!signal.aborted) this.#say(wordsOf(error));
    }
  }

  #say(text) {
    $("everywhere-text").textContent = text;
  }
}

const since = (allocation) => Date.parse(allocation.created);

const isMatch = (matches, { port, count: ports = 1, name, owner = null }) =>
  matches(port, { start: port, end: port + ports - 1, name, owner });
