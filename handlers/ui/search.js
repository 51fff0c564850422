// The search by port, name and owner.

// matcher returns a function that says whether a port with an entry matches a search, or null if everything does.
export function matcher(search) {
  const text = search.trim().toLowerCase();
  if (!text) return null;
  const port = asPort(text);
  const has = (value) => value !== null && value.toLowerCase().includes(text);
  return (at, entry) => {
    if (!entry) return at === port;
    return has(entry.name) || has(entry.owner) || (port !== null && port >= entry.start && port <= entry.end);
  };
}

// asPort returns the port that a text is, or null.
export const asPort = (text) => (/^\d{1,5}$/.test(text) ? Number(text) : null);

// find returns the state of the page to which a search leads: the service that has the port, the service of that name, or the first
// holder that matches. It returns null if nothing does.
export function find(app) {
  const text = app.state.search.trim();
  const port = asPort(text);
  const service = port === null ? null : app.pool.at(port);
  if (service) return { service: service.name, port, search: "" };
  if (!app.service) return app.pool.find(text) && { service: text, search: "" };
  const matches = matcher(text);
  const first = matches && app.service.ports?.entries().find((entry) => matches(entry.start, entry));
  return first ? { port: first.start } : null;
}
