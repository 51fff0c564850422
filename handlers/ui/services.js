// The services of a pool: the list at the side, and the overview with all numbers.
import { $, el } from "./dom.js";
import { count, hasPort, percent, plural, portsOf } from "./format.js";
import { sum } from "./pool.js";
import { Table } from "./table.js";

// taken returns how many ports of a service cannot be had now.
export const taken = (service) => service.ports.total - service.ports.free;

// fill draws the share of ports in each state as a bar. The numbers stand beside it as text.
export function fill(counts, total) {
  const bar = el("span", { className: "fill", "aria-hidden": "true" });
  for (const key of ["allocated", "leased", "offered", "cooling", "quarantined"]) {
    if (!counts[key]) continue;
    const part = el("span", { className: `is-${key}` });
    part.style.width = `${(counts[key] / total) * 100}%`;
    bar.append(part);
  }
  return bar;
}

export class Services {
  #list = $("service-list");
  #items = new Map(); // name -> its item and what it shows
  #link;
  #table;

  // link makes a link to a service with some content.
  constructor(link) {
    this.#link = link;
    this.#table = this.#overview();
  }

  // show lists services, those that match the search, and marks the one that is chosen.
  show(services, chosen, search) {
    const shown = services.filter((service) => matches(service, search));
    $("service-count").textContent = search && shown.length < services.length
      ? `${count(shown.length)} of ${count(services.length)}` : count(services.length);
    const items = shown.map((service) => this.#item(service, service.name === chosen));
    const isSame = items.length === this.#list.children.length && items.every((item, i) => this.#list.children[i] === item);
    if (!isSame) this.#list.replaceChildren(...items);
    const names = new Set(services.map((service) => service.name));
    for (const name of this.#items.keys()) if (!names.has(name)) this.#items.delete(name);
    if (chosen === null) this.#table.show(shown);
  }

  // item returns the item of a service, made anew only if it shows something else.
  #item(service, isChosen) {
    const shows = JSON.stringify([service, isChosen]);
    const known = this.#items.get(service.name);
    if (known?.shows === shows) return known.item;
    const used = percent(taken(service), service.ports.total);
    const link = this.#link(service.name, [
      el("span", { className: "service-name" }, service.name),
      el("span", { className: "service-used" }, service.waiting ? `${count(service.waiting)} waiting · ${used}` : used),
      fill(service.ports, service.ports.total),
      el("span", { className: "service-range" }, `${portsOf(service)} · ${count(service.ports.free)} free`),
    ]);
    if (isChosen) link.setAttribute("aria-current", "page");
    const item = el("li", {}, link);
    const hadFocus = known?.item.contains(document.activeElement);
    known?.item.replaceWith(item);
    if (hadFocus) link.focus();
    this.#items.set(service.name, { item, shows });
    return item;
  }

  #overview() {
    const number = (key, text, value) => ({ key, text, isNumber: true, value, cell: (s) => count(value(s)) });
    return new Table($("overview-table"), {
      caption: "Services of the pool",
      sort: { key: "start", isDown: false },
      isCurrent: () => false,
      empty: () => "No service to show.",
      columns: [
        { key: "name", text: "Service", value: (s) => s.name, cell: (s) => this.#link(s.name, [s.name]) },
        { key: "start", text: "Ports", isNumber: true, value: (s) => s.start, cell: (s) => portsOf(s) },
        { key: "fill", text: "In use", value: (s) => taken(s) / s.ports.total, cell: (s) => [
          el("span", { className: "share" }, percent(taken(s), s.ports.total)), fill(s.ports, s.ports.total)] },
        number("free", "Free", (s) => s.ports.free),
        number("offered", "Offered", (s) => s.ports.offered),
        number("allocated", "Allocated", (s) => s.ports.allocated),
        number("cooling", "Resting", (s) => s.ports.cooling),
        number("waiting", "Waiting", (s) => s.waiting),
      ],
    });
  }
}

const matches = (service, search) => {
  const text = search.toLowerCase();
  if (!text) return true;
  const port = /^\d{1,5}$/.test(text) ? Number(text) : null;
  if (port !== null && hasPort(service, port)) return true;
  return service.name.toLowerCase().includes(text) || service.description.toLowerCase().includes(text);
};

// summary says how full a pool is.
export function summary(services) {
  const total = sum(services);
  const text = `${plural(services.length, "service")} with ${plural(total.total, "port")}, ${count(total.free)} of them free.`;
  return total.waiting ? `${text} ${plural(total.waiting, "call")} waiting.` : text;
}

// drawPools shows the other pools with their fill, as far as their services are known. link makes a link to a pool.
export function drawPools(pools, sums, chosen, link) {
  const others = pools.filter((pool) => pool.name !== chosen);
  $("pools").hidden = others.length === 0;
  const shows = JSON.stringify(others.map((pool) => [pool, sums.get(pool.name)]));
  if ($("pool-list").dataset.shows === shows) return;
  $("pool-list").dataset.shows = shows;
  $("pool-list").replaceChildren(...others.map(({ name, services }) => {
    const total = sums.get(name);
    const used = total && total.total - total.free;
    return el("li", {}, link(name, [
      el("span", { className: "service-name" }, name),
      total ? el("span", { className: "service-used" }, percent(used, total.total)) : null,
      total ? fill(total, total.total) : null,
      el("span", { className: "service-range" },
        [services === undefined ? null : plural(services, "service"), total && `${count(total.free)} free`].filter(Boolean).join(" · ")),
    ]));
  }));
}
