// What operators do, each after a confirmation that names it. What the role of the caller does not include is refused by the server;
// the dialog stays open and says so.
import { $, el, say } from "./dom.js";
import { count, duration, ports as portsText, portsOf } from "./format.js";
import { wordsOf } from "./api.js";

// ask shows a dialog: a title, what will be done in words, fields, and a button that does it. act gets the values of the fields and
// returns what was done in words. The dialog closes when that succeeds, and says why when it fails.
function ask({ title, words, fields = [], label, isDanger, act }) {
  const dialog = $("act-dialog");
  const wrong = el("p", { className: "wrong", role: "alert" });
  const cancel = el("button", { type: "button", on: { click: () => dialog.close() } }, "Cancel");
  const submit = el("button", { type: "submit", className: isDanger ? "danger" : "primary" }, label);
  const inputs = fields.map((field) => el("input", {
    id: `act-${field.name}`, name: field.name, type: field.isSwitch ? "checkbox" : "text", value: field.value ?? "",
    required: field.isRequired ?? false, autocomplete: "off", spellcheck: false, placeholder: field.hint ?? "",
  }));
  const form = el("form", { method: "dialog" },
    el("h2", { id: "act-title" }, title),
    words.map((text) => el("p", {}, text)),
    fields.map((field, i) => el("label", { className: field.isSwitch ? "switch" : "" }, el("span", {}, field.text), inputs[i])),
    wrong,
    el("div", { className: "actions" }, cancel, submit));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (submit.disabled) return; // twice is once
    submit.disabled = true;
    wrong.textContent = "";
    try {
      const valueOf = (input) => (input.type === "checkbox" ? input.checked : input.value.trim());
      const done = await act(Object.fromEntries(inputs.map((input) => [input.name, valueOf(input)])));
      if (form.isConnected) dialog.close();
      say(done);
    } catch (error) {
      wrong.textContent = wordsOf(error);
    } finally {
      submit.disabled = false;
    }
  });
  dialog.replaceChildren(form);
  dialog.showModal();
  (inputs[0] ?? (isDanger ? cancel : submit)).focus();
}

const fieldsOf = (service) => [
  { name: "ranges", text: "Ports", value: service && portsOf(service), hint: "for example 5000-5099, 7000-7099", isRequired: true },
  { name: "description", text: "Description", value: service?.description },
  { name: "cooldown", text: "Cooldown after a release", value: service ? duration(service.cooldown) : "", hint: "for example 5m; none if empty" },
];

// bodyOf makes the body of a call from the fields. What is not a number is sent as it is, and the server says what is wrong with it.
function bodyOf({ ranges, cooldown, ...others }) {
  const number = (text) => (/^\d+$/.test(text) ? Number(text) : text);
  const rangeOf = (text) => {
    const [first, last = first] = text.split(/\s*[-–]\s*/);
    return { start: number(first), end: number(last) };
  };
  const parts = ranges && { ranges: ranges.split(/\s*,\s*/).map(rangeOf) };
  return { ...others, ...parts, ...(cooldown && { cooldown: number(cooldown) }) };
}

// define asks for a new service. done is called with its name.
export function define(api, base, pool, done) {
  ask({
    title: "Define a service",
    words: [`Clients can get its ports at once. The ranges of services in the pool ${pool} must not overlap.`],
    fields: [{ name: "name", text: "Name", isRequired: true }, ...fieldsOf(null)],
    label: "Define",
    act: async (values) => {
      const service = await api.call(`${base}/services`, { method: "POST", body: bodyOf(values) });
      done(service.name);
      return [`Service ${service.name} is defined.`, ...(service.warnings ?? [])].join(" ");
    },
  });
}

export function change(api, path, service, done) {
  ask({
    title: `Change ${service.name}`,
    words: ["Ports that are allocated or on offer stay as they are. Ranges that would leave one of them out are refused, unless it may drain."],
    fields: [...fieldsOf(service), { name: "drain", text: "Let ports that are in use drain: they leave when they are given back", isSwitch: true }],
    label: "Change",
    act: async (values) => {
      if (values.ranges === portsOf(service)) values.ranges = null; // another may change them meanwhile
      const changed = await api.call(path, { method: "PATCH", body: { cooldown: 0, ...bodyOf(values) } });
      done();
      return [`Service ${service.name} is changed.`, ...(changed.warnings ?? [])].join(" ");
    },
  });
}

export function remove(api, path, service, done) {
  const used = service.ports.allocated + service.ports.offered;
  ask({
    title: `Remove ${service.name}?`,
    words: [
      `This removes the service ${service.name}. Nobody can get its ports ${portsOf(service)} any more.`,
      `The server refuses that as long as ports are allocated or on offer. Now ${used ? count(used) : "none"} are.`,
    ],
    label: `Remove ${service.name}`,
    isDanger: true,
    act: async () => {
      await api.call(path, { method: "DELETE" });
      done();
      return `Service ${service.name} is removed.`;
    },
  });
}

// release asks the server for the fence first: what is released is the allocation that was confirmed, and never its successor.
export async function release(api, path, service, entry) {
  let held;
  try {
    held = await api.call(`${path}/ports/${entry.start}`);
  } catch (error) {
    say(wordsOf(error), true);
    return;
  }
  const after = service.cooldown ? `after ${duration(service.cooldown)} of cooldown` : "at once";
  const what = `${held.count ? "ports" : "port"} ${portsText(held.port, held.port + (held.count ?? 1) - 1)}`;
  ask({
    title: `Release ${what}?`,
    words: [
      `This takes ${what} of ${service.name} from ${held.name}${held.owner ? `, whose owner is ${held.owner}` : ""}.`,
      `A program that uses ${held.count ? "them" : "it"} is not stopped. The next holder may come ${after}.`,
    ],
    label: `Release ${what}`,
    isDanger: true,
    act: async () => {
      await api.call(`${path}/ports/${held.port}`, { method: "DELETE", headers: { "If-Match": `"${held.fence}"` } });
      return `The ${what} of ${service.name} ${held.count ? "are" : "is"} released.`;
    },
  });
}
