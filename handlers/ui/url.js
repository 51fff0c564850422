// The state of the page that is worth a link: pool, service, port and search. It is the query of the page's address, so that the
// back button, bookmarks and new tabs work.

const NAME = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$/;

// read returns the state in the query of an address. What cannot be a name or a port is left out.
export function read(search = location.search) {
  const query = new URLSearchParams(search);
  const name = (key) => (NAME.test(query.get(key) ?? "") ? query.get(key) : null);
  const port = /^\d{1,5}$/.test(query.get("port") ?? "") ? Number(query.get("port")) : null;
  return { pool: name("pool"), service: name("service"), port, search: query.get("search") ?? "" };
}

// link returns the address of a state.
export function link(state) {
  const query = new URLSearchParams();
  for (const key of ["pool", "service", "port", "search"]) {
    if (state[key] !== null && state[key] !== "") query.set(key, state[key]);
  }
  const text = query.toString();
  return location.pathname + (text ? `?${text}` : "");
}

// write puts the state into the address: as a step of its own for the back button, or in place of the present one.
export function write(state, isStep) {
  const address = link(state);
  if (address === location.pathname + location.search) return;
  history[isStep ? "pushState" : "replaceState"](null, "", address);
}
