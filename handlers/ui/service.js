// The service that is looked at: its ports, kept as they are on the server. Events tell most changes within a moment. Offers and
// renewals are in no event, so these are read every few seconds, and only while there are any.
import { adjust, now } from "./clock.js";
import { Ports } from "./ports.js";

const FIRST = 10; // calls that wait that are shown
const RENEWALS = 30000; // ms after which leases are read anew, though none is over

export class Service {
  ports = null; // null until they were read
  info; // what the API says of the service
  waiting = []; // the first calls that wait for a port, at most FIRST
  isStale = false; // whether the map has to be read anew
  #api;
  #path;
  #ended = new AbortController();
  #pending = null; // events that came while the map is being read
  #leasesRead = 0;
  #offersSeen = false;
  #differed = false; // whether the numbers of the server and of the page were different before

  constructor(api, path, info) {
    this.#api = api;
    this.#path = path;
    this.info = info;
  }

  get path() {
    return this.#path;
  }

  // close ends all calls for this service.
  close() {
    this.#ended.abort();
  }

  // load reads the whole map. Events that come meanwhile are applied to it afterwards, from the time of its first page on.
  async load() {
    if (this.#pending) return; // it is being read
    this.#pending = [];
    this.isStale = false;
    try {
      const entries = [];
      let first = null;
      for (let next = {}; next; ) {
        const sent = Date.now();
        const page = await this.#api.page(`${this.#path}/map`, next, this.#ended.signal);
        adjust(page.body.time, sent);
        first ??= Date.parse(page.body.time);
        entries.push(...page.body.ports);
        next = page.next;
      }
      const ports = new Ports(this.info, entries);
      for (const event of this.#pending) if (Date.parse(event.data.time) >= first) ports.apply(event, now());
      if (this.ports) ports.version += this.ports.version;
      this.ports = ports;
      this.#leasesRead = performance.now();
      this.#differed = false;
    } finally {
      this.#pending = null;
    }
  }

  // take applies an event, and returns the ports that it changed, or null.
  take(event) {
    this.#pending?.push(event);
    return this.ports?.apply(event, now()) ?? null;
  }

  // freshen reads what no event tells. It answers whether the map has to be read anew.
  async freshen() {
    if (!this.ports || this.#pending) return false;
    const { signal } = this.#ended;
    this.waiting = this.info.waiting ? (await this.#api.page(`${this.#path}/waiting`, { limit: FIRST }, signal)).body : [];
    const isDue = this.ports.age(now());
    const counts = this.ports.counts();
    if (this.info.ports.offered > 0 || counts.offered > 0 || this.#offersSeen) await this.#reread("offers", "offered", signal);
    this.#offersSeen = counts.offered > 0;
    if (counts.leased > 0 && (isDue || performance.now() - this.#leasesRead > RENEWALS)) {
      await this.#reread("ports", "allocated", signal);
      this.#leasesRead = performance.now();
    }
    return this.#differs();
  }

  async #reread(list, state, signal) {
    const asked = performance.now();
    const items = await this.#api.all(`${this.#path}/${list}`, {}, signal);
    this.ports.reload(state, items, asked);
  }

  // differs compares the page's numbers with the server's. A difference may be an event that is on its way: only one that is seen
  // twice in a row counts.
  #differs() {
    const mine = this.ports.counts();
    const { free, allocated } = this.info.ports;
    const differs = mine.free !== free || mine.allocated + mine.leased !== allocated;
    const isLasting = differs && this.#differed;
    this.#differed = differs;
    return isLasting;
  }
}
