// The page: it connects its parts with each other and with what people do.
import { Api, wordsOf } from "./api.js";
import { App } from "./app.js";
import * as dialogs from "./dialogs.js";
import { $, say } from "./dom.js";
import { Everywhere } from "./everywhere.js";
import { Screen } from "./screen.js";
import { find } from "./search.js";
import { Session } from "./session.js";
import * as url from "./url.js";

let poolShown = null;
const session = new Session(() => app.start());
const api = new Api(session);
const app = new App(api, {
  change: () => screen.draw(),
  ports: () => screen.loaded(),
  events: (events, changed) => screen.happened(events, changed),
  opened: () => {
    screen.opened(app.pool !== poolShown);
    everywhere.clear();
    poolShown = app.pool;
  },
  unknown: (name) => say(`The pool ${app.state.pool} has no service ${name}, or no longer.`, true),
  connection: showConnection,
  failed: showTrouble,
});
const screen = new Screen(app, api, (entry) => dialogs.release(api, app.service.path, app.service.info, entry));
const everywhere = new Everywhere(api, (service, port, text) => screen.link({ service, port }, text));

// Links within the page change its state. With a modifier they open a tab, as all links do.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || link.pathname !== location.pathname || link.origin !== location.origin || link.hash) return;
  if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  const to = url.read(link.search);
  app.go({ ...to, pool: to.pool ?? app.state.pool }).then(() => screen.view.reveal(to.port));
});

$("pool").addEventListener("change", () => app.go({ pool: $("pool").value, service: null, port: null, search: "" }));
$("service-all").addEventListener("click", () => app.go({ service: null, port: null, search: "" }));
$("define").addEventListener("click", () => dialogs.define(api, app.pool.base, app.pool.name, async (name) => {
  await app.reload();
  app.go({ service: name, port: null, search: "" });
}));
$("change").addEventListener("click", () => dialogs.change(api, app.service.path, app.service.info, () => app.reload()));
$("remove").addEventListener("click", () => dialogs.remove(api, app.service.path, app.service.info, async () => {
  await app.go({ service: null, port: null });
  app.reload();
}));

$("search").addEventListener("input", () => {
  everywhere.clear();
  app.go({ search: $("search").value }, false);
});
$("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!app.pool || !app.state.search.trim()) return;
  const to = find(app);
  if (to) app.go(to).then(() => { $("search").value = app.state.search; screen.view.reveal(app.state.port, true); });
  else app.go({ service: null, port: null }).then(() => everywhere.look(app.pool, app.state.search));
});
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, select, textarea, dialog");
  if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  $("search").focus();
});

// showConnection says whether the page shows what is, or what was. A server that ends its streams because it stops is replaced by
// the next one within a moment, of which nobody needs to hear.
const LOST = 3000; // ms after which it is worth saying
let lost = null; // says it, or has said it
function showConnection(status, why = "") {
  const box = $("connection");
  box.dataset.status = status;
  box.textContent = { live: "live", lost: "connecting…", hidden: "paused" }[status];
  box.title = why;
  if (status === "lost") {
    lost ??= { timer: setTimeout(() => { lost.isSaid = true; say(`The page is not live for now. ${why}`, true); }, LOST) };
    return;
  }
  clearTimeout(lost?.timer);
  if (lost?.isSaid && status === "live") say("The page is live again.");
  lost = null;
}

// showTrouble says what is wrong, until nothing is.
function showTrouble(error) {
  if (error?.name === "AbortError") return;
  const text = !error ? "" : error.status === 401 ? "Nothing can be shown without a token that the server takes." : wordsOf(error);
  if ($("trouble").textContent !== text) $("trouble").textContent = text;
  $("trouble").hidden = text === "";
}

$("search").value = app.state.search;
window.addEventListener("popstate", () => { $("search").value = app.state.search; });
app.start();
