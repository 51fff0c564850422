// What is on the screen of the pool and the service that the page looks at.
import { Card } from "./card.js";
import { now } from "./clock.js";
import { $, el, say, timeOf } from "./dom.js";
import { Feed } from "./feed.js";
import { count, duration, plural, portsOf } from "./format.js";
import { holders } from "./holders.js";
import { drawLegend, showCounts } from "./legend.js";
import { MapView } from "./map.js";
import { describe, listen } from "./mapinput.js";
import { sum } from "./pool.js";
import { matcher } from "./search.js";
import { Services, drawPools, fill, summary } from "./services.js";
import * as url from "./url.js";

// factsOf says in a line how a service is defined, and how many ports it still has outside of its ranges.
const factsOf = (info) => [
  `ports ${portsOf(info)}`,
  info.ports.draining && `${count(info.ports.draining)} draining`,
  info.cooldown ? `cooldown ${duration(info.cooldown)}` : "no cooldown",
  info.pick && `ports by ${info.pick}`,
  info.default_lease && `default lease ${duration(info.default_lease)}`,
  info.max_lease && `longest lease ${duration(info.max_lease)}`,
].filter(Boolean).join(" · ");

export class Screen {
  view = new MapView(now);
  #app;
  #feed;
  #services;
  #card;
  #table;
  #news = []; // events that the feed does not show yet
  #timer = null;
  #rested = 0; // when events may be drawn again, by the page's clock
  #drawn = null; // what the table was made of

  // release is called with an entry whose release somebody asks for.
  constructor(app, api, release) {
    this.#app = app;
    this.#feed = new Feed((service, port, text) => this.link({ service, port }, text));
    this.#services = new Services((service, content) => this.link({ service }, content));
    this.#card = new Card(api, now, release, () => this.#choose(null));
    const drains = (entry) => app.service?.ports?.drains(entry.start, entry.end);
    this.#table = holders(now, () => app.state, drains, (port, text) => this.link({ ...app.state, port }, text));
    listen(this.view, now, (port) => this.#choose(port));
    drawLegend();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawLegend(); this.draw(); });
    setInterval(() => this.draw(), 1000); // for what counts down
  }

  // opened shows that another pool or service is looked at.
  opened(isOtherPool) {
    const hasService = this.#app.service !== null;
    if (isOtherPool) {
      this.#news = [];
      this.#feed.clear();
    }
    $("overview").hidden = hasService;
    $("service").hidden = !hasService;
    if (hasService) $("pools").hidden = true;
    document.body.classList.toggle("has-service", hasService);
    this.view.show(null);
    $("map-at").textContent = "";
    this.#table.toStart();
    this.#drawn = null;
    this.draw();
  }

  // loaded shows ports that were read.
  loaded() {
    const { ports } = this.#app.service;
    const { view } = this;
    const isSame = view.ports?.shape === ports.shape;
    $("map-wait").hidden = true;
    if (isSame) view.ports = ports;
    else view.show(ports);
    this.#drawn = null;
    this.draw();
    if (!isSame) view.reveal(this.#app.state.port);
  }

  // happened shows events, and marks the ports of the service that they changed.
  happened(events, changed) {
    const { service, state } = this.#app;
    this.#news.push(...events);
    for (const [start, end] of changed) this.view.flash(start, end);
    this.view.draw();
    this.schedule();
    if (state.port !== null && changed.some(([start, end]) => state.port >= start && state.port <= end)) {
      say(describe(state.port, service.ports, now()));
      this.#card.reread(service.path, state.port);
    }
  }

  // schedule draws at once if nothing was drawn just now. What follows waits, so that most of the time is left to other things,
  // whatever drawing costs.
  schedule() {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      const began = performance.now();
      this.#feed.add(this.#news.splice(0));
      this.draw();
      const ended = performance.now();
      this.#rested = ended + Math.max(60, 5 * (ended - began));
    }, Math.max(0, this.#rested - performance.now()));
  }

  draw() {
    const { pool, service, pools, state } = this.#app;
    if (!pool || document.hidden) return;
    this.#drawPools(pools, state.pool);
    this.#services.show(pool.services, service?.info.name ?? null, service ? "" : state.search);
    document.title = [service?.info.name, pool.name, "Portmaster"].filter(Boolean).join(" · ");
    if (service) this.#drawService(service, state);
    else this.#drawOverview(pool);
  }

  #drawPools(pools, chosen) {
    const shows = JSON.stringify(pools);
    if ($("pool").dataset.shows !== shows) {
      $("pool").dataset.shows = shows;
      $("pool").replaceChildren(...pools.map(({ name, services }) =>
        el("option", { value: name }, services === undefined ? name : `${name} · ${plural(services, "service")}`)));
    }
    if ($("pool").value !== chosen) $("pool").value = chosen;
  }

  #drawOverview(pool) {
    const total = sum(pool.services);
    $("overview-title").textContent = `Pool ${pool.name}`;
    $("overview-text").textContent = pool.isLoaded ? `${summary(pool.services)}` : "Reading…";
    $("overview-fill").replaceChildren(fill(total, total.total));
    const isEmpty = pool.isLoaded && pool.services.length === 0;
    $("first-steps").hidden = !isEmpty;
    for (const id of ["overview-text", "overview-fill", "overview-table"]) $(id).hidden = isEmpty;
    $("found").textContent = "";
    drawPools(this.#app.pools, this.#app.sums, pool.name, (name, content) => this.link({ pool: name }, content));
    this.#card.show("", null, null);
  }

  #drawService({ info, ports, path, waiting }, state) {
    $("service-title").textContent = info.name;
    $("service-text").textContent = info.description;
    $("service-facts").textContent = factsOf(info);
    $("service-waiting").textContent = info.waiting ? `${plural(info.waiting, "call")} waiting for a port` : "no calls waiting";
    $("service-waiting").classList.toggle("is-waiting", info.waiting > 0);
    const first = info.waiting ? waiting : [];
    $("service-line").hidden = first.length === 0;
    $("service-line").replaceChildren(...first.map((call) => el("li", {}, el("span", { className: "name" }, call.name ?? "?"),
      call.ports > 1 ? ` for ${call.ports} ports` : null, call.since ? [" since ", timeOf(Date.parse(call.since))] : null)));
    $("map").setAttribute("aria-label", `Map of ${info.name}, ports ${portsOf(info)}`);
    $("map-wait").hidden = ports !== null;
    if (!ports) return;
    ports.age(now());
    const counts = ports.counts();
    showCounts(counts);
    $("service-fill").replaceChildren(fill(counts, info.ports.total));
    const port = state.port !== null && ports.has(state.port) ? state.port : null;
    this.view.selected = port;
    this.#drawTable(ports, state.search, port);
    this.#card.show(path, port, port === null ? null : ports.at(port), port !== null && ports.drains(port));
    this.view.draw();
  }

  // drawTable draws the table: all of it if its rows may be others, else only what it shows of them.
  #drawTable(ports, search, port) {
    const of = `${ports.version} ${port} ${search}`;
    if (this.#drawn === of) {
      this.#table.draw();
      return;
    }
    this.#drawn = of;
    const matches = matcher(search);
    const entries = ports.entries();
    const found = matches ? entries.filter((entry) => matches(entry.start, entry)) : entries;
    const foundSet = new Set(found); // the map asks for each port in each frame
    const text = matches ? (found.length === 1 ? "1 match" : `${count(found.length)} matches`) : "";
    if ($("found").textContent !== text) $("found").textContent = text;
    this.view.search(matches && ((at, entry) => (entry ? foundSet.has(entry) : matches(at, null))));
    this.#table.show(found);
  }

  #choose(port) {
    if (port !== this.#app.state.port) this.#app.go({ port }).then(() => this.showCard());
  }

  // showCard brings the card into sight. In a wide window it always is.
  showCard() {
    if (matchMedia("(max-width: 1180px)").matches && !$("card").hidden) $("card").scrollIntoView({ block: "nearest" });
  }

  // link makes a link to a state of the page in this pool.
  link(to, content) {
    return el("a", { href: url.link({ pool: this.#app.pool?.name ?? null, service: null, port: null, search: "", ...to }) }, content);
  }
}
