// Building elements. Text is only ever added as text, so a name cannot become markup.

export const $ = (id) => document.getElementById(id);

// el makes an element. Properties of the element are set as such, other keys as attributes; null, undefined and false are left out.
// `on` has its event listeners. Children are elements, or become text; null is left out.
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "on") {
      for (const [type, listener] of Object.entries(value)) node.addEventListener(type, listener);
    } else if (key in node && key !== "list") {
      node[key] = value;
    } else {
      node.setAttribute(key, value);
    }
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

// button makes a button that is not the submit button of a form.
export const button = (label, onclick, props = {}) => el("button", { type: "button", on: { click: onclick }, ...props }, label);

// timeOf shows a moment as its local time of day, or the day and the minute if it is not today. The whole moment is its title.
export function timeOf(ms) {
  const moment = new Date(ms);
  const time = moment.toLocaleTimeString("en-GB");
  const isToday = moment.toDateString() === new Date().toDateString();
  const day = moment.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  return el("time", { dateTime: moment.toISOString(), title: moment.toISOString() }, isToday ? time : `${day} ${time.slice(0, 5)}`);
}

// say tells screen readers something, and shows it for a while. What is said within the same moment is said together.
let said = 0;
export function say(text, isError = false) {
  const at = performance.now();
  const box = $("said");
  box.textContent = at - said < 300 && box.textContent ? `${box.textContent} ${text}` : text;
  box.classList.toggle("is-error", isError);
  box.classList.add("is-shown");
  said = at;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => box.classList.remove("is-shown"), isError ? 9000 : 4500);
}
