// The legend of the map: every state with its mark and how many ports have it.
import { $, el } from "./dom.js";
import { count } from "./format.js";
import { STATES, palette, tile } from "./states.js";

const SIDE = 12; // CSS pixels of a mark
const numbers = new Map(); // key of a state -> the element of its number

// drawLegend draws the marks in the colours of the present theme.
export function drawLegend() {
  const ratio = window.devicePixelRatio || 1;
  const side = Math.round(SIDE * ratio);
  $("legend").replaceChildren(...STATES.map((state) => {
    const mark = tile(state.code, side, side, 0, palette(), state);
    mark.setAttribute("aria-hidden", "true");
    const number = el("strong", {}, numbers.get(state.key)?.textContent ?? "");
    numbers.set(state.key, number);
    return el("li", {}, mark, number, ` ${state.text}`);
  }));
}

// showCounts shows how many ports have each state.
export function showCounts(counts) {
  for (const [key, number] of numbers) {
    const text = count(counts[key] ?? 0);
    if (number.textContent !== text) number.textContent = text;
    number.parentElement.classList.toggle("is-none", !counts[key]);
    number.parentElement.hidden = key === "draining" && !counts[key]; // few services ever drain
  }
}
