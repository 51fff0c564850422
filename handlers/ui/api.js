// Calls to the API. Addresses are relative to the page, so they hold behind a proxy that adds a prefix.

const TIMEOUT = 20000; // ms

// Problem is an answer that is an error, or the absence of an answer (status 0).
export class Problem extends Error {
  constructor(status, body, retryAfter) {
    super(body.detail || body.title || `the server answered ${status}`);
    this.status = status;
    this.code = body.code ?? "";
    this.title = body.title ?? "";
    this.fields = body.errors ?? [];
    this.requestID = body.request_id ?? "";
    this.retryAfter = retryAfter; // ms, 0 if the server did not say
  }

  // words says what happened for the one who asked.
  get words() {
    if (this.status === 0) return `The server cannot be reached: ${this.message}.`;
    const fields = this.fields.map((f) => `${f.field} ${f.detail}`).join("; ");
    const text = `${this.title || "The server refused"}: ${fields || this.message}.`;
    return this.code ? `${text} (${this.code})` : text;
  }
}

async function problemOf(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    body = { title: "The answer is not the API's", detail: `HTTP ${response.status}` };
  }
  return new Problem(response.status, body, Number(response.headers.get("Retry-After") ?? 0) * 1000);
}

// wordsOf says what went wrong, whatever it was.
export const wordsOf = (error) => error.words ?? `The page failed: ${error.message}.`;

// Api calls the API with the token of the session.
export class Api {
  #session;

  constructor(session) {
    this.#session = session;
  }

  // open answers with a response that is not an error, whose body is still to be read, within a number of milliseconds if given.
  // If the server wants a token or no longer takes this one, the session asks for one, and the call is repeated.
  async open(path, { method = "GET", query = {}, headers = {}, body, signal, within } = {}) {
    const address = new URL(`../v1${path}`, document.baseURI);
    for (const [key, value] of Object.entries(query)) address.searchParams.set(key, value);
    for (;;) {
      const token = this.#session.token;
      const request = { method, headers: { ...headers }, signal: limited(signal, within), cache: "no-store" };
      if (token) request.headers.Authorization = `Bearer ${token}`;
      if (body) {
        request.headers["Content-Type"] = "application/json";
        request.body = JSON.stringify(body);
      }
      const response = await fetch(address, request).catch((error) => {
        throw signal?.aborted ? error : new Problem(0, { detail: "no answer" }, 0);
      });
      if (response.ok) return response;
      const problem = await problemOf(response);
      if (problem.status !== 401 || !(await this.#session.renew(token))) throw problem;
    }
  }

  // call answers with the JSON of a response, or null if it has none.
  async call(path, options = {}) {
    const response = await this.open(path, { within: TIMEOUT, ...options });
    return response.status === 204 ? null : response.json();
  }

  // page answers with one page of a list, and with the query of the next page, or null after the last.
  async page(path, query = {}, signal = undefined) {
    const response = await this.open(path, { query, signal, within: TIMEOUT });
    const next = /<[^>]*\?([^>]*)>; *rel="next"/.exec(response.headers.get("Link") ?? "");
    return { body: await response.json(), next: next && Object.fromEntries(new URLSearchParams(next[1])) };
  }

  // all answers with all items of a list.
  async all(path, query = {}, signal = undefined) {
    const items = [];
    for (let next = query; next; ) {
      const page = await this.page(path, next, signal);
      items.push(...page.body);
      next = page.next;
    }
    return items;
  }
}

// limited returns a signal that ends a call when the given one does, or after a number of milliseconds.
function limited(signal, within) {
  const signals = [signal, within && AbortSignal.timeout(within)].filter(Boolean);
  return signals.length ? AbortSignal.any(signals) : undefined;
}
