// What the page knows of a pool: its services and how full they are.
import { hasPort } from "./format.js";

// SERVICES is the query of a list of services. Redis counts the ports of each, so pages are short: others get their turn in between.
export const SERVICES = { limit: 100 };

const REREAD = 3; // services that are read anew at once; others follow

export class Pool {
  name;
  base; // the path of its routes
  services = []; // by range, as the API lists them
  isLoaded = false;
  #api;
  #stale = new Set(); // names of services whose numbers have changed since they were read
  #isStale = false; // whether the list has changed
  #loading = null;

  constructor(api, name) {
    this.#api = api;
    this.name = name;
    this.base = `/pools/${name}`;
  }

  find(name) {
    return this.services.find((service) => service.name === name) ?? null;
  }

  // at returns the service that has a port, or null.
  at(port) {
    return this.services.find((service) => hasPort(service, port)) ?? null;
  }

  pathOf(service) {
    return `${this.base}/services/${service}`;
  }

  async load() {
    this.#isStale = false;
    this.services = await this.#api.all(`${this.base}/services`, SERVICES);
    this.isLoaded = true;
  }

  // ready answers when the services are known, and reads them if nobody has begun to.
  ready() {
    this.#loading ??= this.load().catch((error) => {
      this.#loading = null; // the next one tries again
      throw error;
    });
    return this.#loading;
  }

  get isStale() {
    return this.#isStale || this.#stale.size > 0;
  }

  // take notes what an event makes stale.
  take({ kind, data }) {
    if (kind === "defined" || kind === "changed" || kind === "removed") this.#isStale = true;
    else this.#stale.add(data.service);
  }

  // freshen reads what is stale, first of all the service that is looked at.
  async freshen(first) {
    if (this.#isStale) {
      this.#stale.clear();
      await this.load();
      return;
    }
    const names = [...this.#stale].sort((a, b) => (b === first) - (a === first)).slice(0, REREAD);
    for (const name of names) this.#stale.delete(name);
    await Promise.all(names.map((name) => this.reread(name)));
  }

  // reread reads one service anew. One that was removed meanwhile leaves the list.
  async reread(name) {
    const i = this.services.findIndex((service) => service.name === name);
    if (i < 0) return;
    try {
      const read = await this.#api.call(this.pathOf(name));
      const at = this.services.findIndex((service) => service.name === name); // the list may have been read meanwhile
      if (at >= 0) this.services[at] = read;
    } catch (error) {
      if (error.status !== 404) throw error;
      this.services = this.services.filter((service) => service.name !== name);
    }
  }
}

// sum adds up the ports of services, for the pool as a whole.
export function sum(services) {
  const total = { total: 0, free: 0, offered: 0, allocated: 0, cooling: 0, draining: 0, waiting: 0 };
  for (const service of services) {
    for (const key of Object.keys(service.ports)) total[key] += service.ports[key];
    total.waiting += service.waiting;
  }
  return total;
}
