// The stream of a pool's events, one for the tab. It is read with fetch, since an EventSource cannot send a token. It ends while the
// tab is hidden, and resumes after the last event that arrived.

const SILENCE = 15000; // ms without a byte, three beats, after which the connection counts as lost
const A_MOMENT = 500;
const FIRST_PAUSE = 300; // ms before a connection is tried again, twice as long after each failure
const LONGEST_PAUSE = 15000;

export class Stream {
  #api;
  #on;
  #path = null;
  #last = null; // the id of the last event
  #begun = () => {}; // answers follow
  #ended = null; // ends the present connection and all that would follow it

  // on.events gets a list of events as they come, each with kind, id and data. on.state gets "live", "lost" or "hidden", and
  // why. on.begun is called when the first event can come, and on.reset if events were missed: what was read before is to be read
  // anew.
  constructor(api, on) {
    this.#api = api;
    this.#on = on;
    document.addEventListener("visibilitychange", () => this.#resume());
  }

  // follow begins with the events of a pool, from now on. It answers when they can come, or when that takes longer than a moment.
  follow(path) {
    this.#path = path;
    this.#last = null;
    const begun = new Promise((resolve) => {
      this.#begun = resolve;
      setTimeout(resolve, A_MOMENT);
    });
    this.#resume();
    return begun;
  }

  #resume() {
    this.#ended?.abort();
    this.#ended = null;
    if (this.#path === null) return;
    if (document.hidden) {
      this.#on.state("hidden");
      return;
    }
    this.#ended = new AbortController();
    this.#run(this.#ended.signal);
  }

  async #run(ended) {
    for (let pause = FIRST_PAUSE; !ended.aborted; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
      let least = 0;
      try {
        await this.#connect(ended, () => (pause = FIRST_PAUSE));
        if (!ended.aborted) this.#on.state("lost", "The server ended the stream.");
      } catch (error) {
        if (ended.aborted) return;
        this.#on.state("lost", error.words ?? "The connection was lost.");
        least = Math.min(error.retryAfter ?? 0, 60000);
        if (error.status === 401 || error.status === 403) least = 60000; // another token begins anew
      }
      await sleep(Math.max(pause, least) * (0.75 + Math.random() / 2), ended); // many tabs do not come back in the same moment
    }
  }

  // connect reads one connection to its end.
  async #connect(ended, onBeat) {
    const silent = new AbortController();
    let timer;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => silent.abort(), SILENCE);
    };
    try {
      heard();
      const response = await this.#api.open(this.#path, {
        headers: { Accept: "text/event-stream", ...(this.#last && { "Last-Event-ID": this.#last }) },
        signal: AbortSignal.any([ended, silent.signal]),
      });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const parse = parser();
      for (;;) {
        const { done, value } = await reader.read();
        if (done || ended.aborted) return;
        heard();
        onBeat();
        this.#take(parse(value));
      }
    } finally {
      clearTimeout(timer);
      silent.abort(); // also where the body was not read to its end
    }
  }

  #take(events) {
    const news = [];
    for (const event of events) {
      const isFirst = this.#last === null;
      if (event.id) this.#last = event.id;
      if (event.kind === "ready") {
        this.#on.state("live");
        if (isFirst) this.#on.begun();
        this.#begun();
      } else if (event.kind === "reset") {
        news.length = 0;
        this.#on.state("live");
        this.#on.reset();
      } else {
        news.push(event);
      }
    }
    if (news.length) this.#on.events(news);
  }
}

// parser returns a function that takes the next piece of the text and returns the events that it completes.
export function parser() {
  let rest = "";
  let event = {};
  return (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    const events = [];
    for (const line of lines) {
      if (line === "") {
        if (event.kind) events.push({ kind: event.kind, id: event.id, data: JSON.parse(event.data || "{}") });
        event = {};
      }
      const colon = line.indexOf(":");
      if (colon <= 0) continue; // a comment, such as the beat
      const value = line.slice(colon + 1).replace(/^ /, "");
      if (line.startsWith("event:")) event.kind = value;
      if (line.startsWith("id:")) event.id = value;
      if (line.startsWith("data:")) event.data = (event.data ?? "") + value;
    }
    return events;
  };
}

const sleep = (ms, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
