// What the page looks at, and how that stays as it is on the server: by the stream, and by reading what no event tells.
import { portsOf } from "./format.js";
import { Pool, SERVICES, sum } from "./pool.js";
import { Service } from "./service.js";
import { Stream } from "./stream.js";
import * as url from "./url.js";

const TICK = 5000; // ms between two readings of what no event tells
const LONG = 6; // ticks between two readings of all pools and services
const MOST_SUMMED = 500; // services of other pools that are read for their fill
const NEWS = 1000; // ms after an event before the numbers of its service are read anew

export class App {
  state = url.read();
  pools = [];
  sums = new Map(); // pool -> the ports of its services in sum, of those that were read
  pool = null;
  service = null;
  #api;
  #on;
  #stream;
  #ticks = 0;
  #isReading = false;
  #news = null;

  // on.change is called after something changed, on.ports if all ports may have, on.events with events and the ports of the service
  // that they changed, on.failed with an error, on.unknown if a service of the address is not there, on.opened with a pool or a
  // service that is looked at now, and on.connection with the state of the stream.
  constructor(api, on) {
    this.#api = api;
    this.#on = on;
    this.#stream = new Stream(api, {
      events: (events) => this.#take(events),
      state: on.connection,
      begun: () => { if (this.pool.isLoaded) this.reload(); }, // it was read too early
      reset: () => this.reload(),
    });
    window.addEventListener("popstate", () => {
      const { pool } = this.state;
      this.state = url.read();
      this.state.pool ??= pool;
      this.#applied();
    });
    setInterval(() => this.#tick(), TICK);
  }

  // go changes the state of the page. A step is what the back button takes back.
  go(change, isStep = true) {
    this.state = { ...this.state, ...change };
    url.write(this.state, isStep);
    return this.#applied();
  }

  // start begins anew, such as with another token.
  start() {
    this.#leave();
    this.pool = null;
    return this.#guard(async () => {
      await this.#readPools();
      await this.#apply();
    });
  }

  // reload reads the pool and the service anew, such as after events were missed.
  reload() {
    return this.#guard(async () => {
      await this.pool.load();
      const info = this.service && this.pool.find(this.service.info.name);
      const isSame = info && portsOf(info) === portsOf(this.service.info);
      if (this.service && !isSame) this.#leave();
      else if (this.service) await this.#load();
      await this.#apply();
    });
  }

  async #readPools() {
    this.pools = await this.#api.all("/pools");
    const names = this.pools.map((pool) => pool.name);
    this.state.pool ??= names.includes("default") || !names.length ? "default" : names[0];
    if (!names.includes(this.state.pool)) this.pools.push({ name: this.state.pool, services: 0 }); // its first service creates it
    if (!this.state.service) this.#guard(() => this.#sumPools());
  }

  // sumPools reads how full the other pools are.
  async #sumPools() {
    let budget = MOST_SUMMED;
    for (const { name, services = budget } of this.pools) {
      if (name === this.state.pool || (budget -= services) < 0) continue;
      this.sums.set(name, sum(await this.#api.all(`/pools/${name}/services`, SERVICES)));
    }
  }

  #applied() {
    return this.#guard(() => this.#apply());
  }

  // guard runs what may fail, and says so if it does.
  async #guard(run) {
    try {
      await run();
    } catch (error) {
      this.#on.failed(error);
    }
    this.#on.change();
  }

  // apply makes the page look at what the state says.
  async #apply() {
    if (this.pool?.name !== this.state.pool) {
      this.#leave();
      this.pool = new Pool(this.#api, this.state.pool);
      this.#on.opened();
      await this.#stream.follow(`${this.pool.base}/events`); // first the stream, then the state: nothing is missed in between
    }
    const { pool } = this;
    await pool.ready();
    if (pool === this.pool && this.service?.info.name !== (this.state.service ?? undefined)) await this.#open();
  }

  // open looks at the service of the state, or at none.
  async #open() {
    this.#leave();
    const info = this.state.service && this.pool.find(this.state.service);
    if (this.state.service && !info) {
      this.#on.unknown(this.state.service);
      this.state = { ...this.state, service: null, port: null };
      url.write(this.state, false);
    }
    if (info) this.service = new Service(this.#api, this.pool.pathOf(info.name), info);
    this.#on.opened();
    if (info) await this.#load();
  }

  #leave() {
    this.service?.close();
    this.service = null;
  }

  async #load() {
    const { service } = this;
    service.info = this.pool.find(service.info.name) ?? service.info;
    await service.load();
    if (service === this.service) this.#on.ports();
  }

  #take(events) {
    const changed = [];
    for (const event of events) {
      this.pool.take(event);
      if (event.data.service !== this.service?.info.name) continue;
      const ports = this.service.take(event);
      if (ports) changed.push(ports);
      if (event.kind === "in_use") this.service.isStale = true; // until when the port rests, only the map says
    }
    this.#on.events(events, changed);
    this.#news ??= setTimeout(() => this.#freshen(), NEWS);
  }

  // freshen reads the numbers of services in which something happened.
  #freshen() {
    return this.#guard(async () => {
      const { pool, service } = this;
      try {
        await pool.freshen(service?.info.name);
      } finally {
        this.#news = pool.isStale ? setTimeout(() => this.#freshen(), NEWS) : null;
      }
      if (pool === this.pool) await this.#follow();
    });
  }

  // follow takes over what the pool knows of the service by now.
  async #follow() {
    const { service } = this;
    if (!service) return;
    const info = this.pool.find(service.info.name);
    if (info && portsOf(info) === portsOf(service.info) && info.cooldown === service.info.cooldown) {
      service.info = info;
      if (service.isStale) await this.#load();
      return;
    }
    await this.#open(); // it was changed or removed
  }

  // tick reads what no event tells, while somebody sees the page. While a reading takes longer, such as until a token is given, there
  // is no other.
  async #tick() {
    if (document.hidden || this.#isReading) return;
    this.#isReading = true;
    await this.#guard(async () => {
      if (!this.pool?.isLoaded) {
        await this.#readPools();
        await this.#apply();
        return;
      }
      const { service, pool } = this;
      this.#ticks = (this.#ticks + 1) % LONG;
      if (this.#ticks === 0) await Promise.all([this.#readPools(), pool.load()]);
      else if (service) await pool.reread(service.info.name);
      if (pool !== this.pool || service !== this.service) return;
      await this.#follow();
      if (this.service && (!this.service.ports || (await this.service.freshen()))) await this.#load();
      this.#on.failed(null);
    });
    this.#isReading = false;
  }
}
