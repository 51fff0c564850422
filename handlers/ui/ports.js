// The ports of one service, as far as the page knows them: what the map said, and every event since.

import { portsOf, rangesOf } from "./format.js";

// Ports has an entry for each port that is not free. An entry is {start, end, state, name, owner, created, until}, with times in
// milliseconds and null for what is absent; all ports of a block share one. Ports that drain are outside of the service's ranges, and
// part of it while they are held.
export class Ports {
  version = 0; // grows with each change
  #at;
  #isOutside; // by port: in none of the ranges of the service
  #changed = new Map(); // port -> when an event last changed it, by the page's clock

  // service is what the API says of a service, entries are those of its map.
  constructor(service, entries) {
    this.start = entries.reduce((first, entry) => Math.min(first, entry.start), service.start);
    this.end = entries.reduce((last, entry) => Math.max(last, entry.end), service.end);
    this.shape = `${this.start}-${this.end}: ${portsOf(service)}`;
    this.cooldown = service.cooldown * 1000;
    this.#at = new Array(this.end - this.start + 1).fill(null);
    this.#isOutside = new Uint8Array(this.#at.length).fill(1);
    for (const { start, end } of rangesOf(service)) this.#isOutside.fill(0, start - this.start, end - this.start + 1);
    for (const entry of entries) this.#put(entry.start, entry.end, entry.state === "free" ? null : entryOf(entry));
  }

  // size is how many ports there are from the first to the last, with those that are not of the service.
  get size() {
    return this.#at.length;
  }

  has(port) {
    return this.#isOutside[port - this.start] === 0 || this.at(port) !== null;
  }

  // drains says whether a port, or one of several in a row, leaves the service when it is given back.
  drains(start, end = start) {
    for (let port = start; port <= end; port++) if (this.#isOutside[port - this.start] === 1 && this.at(port)) return true;
    return false;
  }

  // at returns the entry of a port, or null if the port is free.
  at(port) {
    return this.#at[port - this.start] ?? null;
  }

  // entries returns all entries in the order of their ports.
  entries() {
    const entries = [];
    for (let i = 0; i < this.#at.length; i++) {
      if (this.#at[i] && this.#at[i] !== this.#at[i - 1]) entries.push(this.#at[i]);
    }
    return entries;
  }

  // counts returns how many ports have each state of STATES, by key. Those that drain have another state as well.
  counts() {
    const counts = { free: 0, offered: 0, allocated: 0, leased: 0, cooling: 0, quarantined: 0, draining: 0 };
    for (const [i, entry] of this.#at.entries()) {
      if (this.#isOutside[i] && !entry) continue;
      counts.draining += this.#isOutside[i];
      if (!entry) counts.free++;
      else counts[entry.state === "allocated" && entry.until !== null ? "leased" : entry.state]++;
    }
    return counts;
  }

  // apply takes an event, and returns the ports that it changed as [start, end], or null if it changed none.
  apply({ kind, data }, now) {
    const start = data.port;
    const end = data.port + (data.count ?? 1) - 1;
    const held = this.at(start);
    const isHeld = held?.name === data.name;
    if (kind === "allocated") {
      const times = { created: Date.parse(data.time), until: timeIn(data.until) };
      this.#put(start, end, { start, end, state: "allocated", ...holderOf(data), ...times });
    } else if (kind === "renewed" && isHeld) {
      this.#put(held.start, held.end, { ...held, until: timeIn(data.until) });
    } else if ((kind === "released" || kind === "expired") && (isHeld || !held)) {
      this.#rest(start, end, Date.parse(kind === "expired" && data.until ? data.until : data.time) + this.cooldown, now);
    } else if (kind === "in_use") {
      this.#put(start, end, { start, end, state: "quarantined", ...NOBODY, until: null });
    } else {
      return null;
    }
    for (let port = start; port <= end; port++) this.#changed.set(port, performance.now());
    return [start, end];
  }

  // reload takes a list that the API was asked for at a time of the page's clock: all entries of a state. What an event has changed
  // since then stays as it is.
  reload(state, list, asked) {
    const isNewer = (entry) => {
      for (let port = entry.start; port <= entry.end; port++) if (this.#changed.get(port) >= asked) return true;
      return false;
    };
    const listed = new Map(list.map((item) => [item.port, item]));
    for (const entry of this.entries()) {
      if (entry.state === state && listed.get(entry.start)?.name !== entry.name && !isNewer(entry)) this.#gone(entry);
    }
    for (const item of list) {
      const entry = entryOf({ ...item, start: item.port, end: item.port + (item.count ?? 1) - 1, state, until: item.expires });
      if (!isNewer(entry)) this.#put(entry.start, entry.end, entry);
    }
    for (const [port, at] of this.#changed) if (at < asked) this.#changed.delete(port);
  }

  // age frees what has cooled down by a time of the server. A lease whose time has passed may have been renewed meanwhile: age
  // returns whether there is one, and leaves it to be read anew.
  age(now) {
    let isDue = false;
    for (const entry of this.entries()) {
      if (entry.until === null || entry.until > now) continue;
      if (entry.state === "cooling" || entry.state === "quarantined") this.#put(entry.start, entry.end, null);
      else isDue = true;
    }
    return isDue;
  }

  // gone: a lease or an offer is no longer listed. If it ended by its time, its ports rest from then on.
  #gone(entry) {
    const ended = entry.state === "allocated" && entry.until !== null ? entry.until : 0;
    this.#rest(entry.start, entry.end, ended + this.cooldown, ended);
  }

  #rest(start, end, until, now) {
    const rests = this.cooldown > 0 && until > now;
    for (let port = start; port <= end; port++) { // each port of a block rests on its own
      this.#put(port, port, rests ? { start: port, end: port, state: "cooling", ...NOBODY, until } : null);
    }
  }

  // put sets some ports. A holder that loses one of its ports has lost all. A port outside of the ranges is gone when nobody holds it.
  #put(start, end, entry) {
    this.version++;
    for (let port = Math.max(start, this.start); port <= Math.min(end, this.end); port++) {
      const old = this.at(port);
      if (old && (old.start < start || old.end > end)) {
        for (let p = Math.max(old.start, this.start); p <= Math.min(old.end, this.end); p++) {
          if (this.at(p) === old) this.#at[p - this.start] = null;
        }
      }
      this.#at[port - this.start] = this.#isOutside[port - this.start] && !entry?.name ? null : entry;
    }
  }
}

const NOBODY = { name: null, owner: null, created: null };
const timeIn = (text) => (text ? Date.parse(text) : null);
const holderOf = ({ name, owner }) => ({ name: name ?? null, owner: owner ?? null });

function entryOf({ start, end, state, created, until, ...holder }) {
  return { start, end, state, ...holderOf(holder), created: timeIn(created), until: timeIn(until) };
}
