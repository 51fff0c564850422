// The pointer and the keyboard on the map.
import { $ } from "./dom.js";
import { ports as portsText, span } from "./format.js";
import { stateOf } from "./states.js";

// describe says what is known of a port, in one line.
export function describe(port, ports, now) {
  const entry = ports.at(port);
  const parts = [`${port}`, stateOf(entry).text];
  if (ports.drains(port)) parts.push("draining");
  if (entry?.name) parts.push(entry.name);
  if (entry?.owner) parts.push(`owner ${entry.owner}`);
  if (entry && entry.end > entry.start && entry.name) parts.push(`block ${portsText(entry.start, entry.end)}`);
  if (entry?.until) parts.push(entry.until > now ? `${span(entry.until - now)} left` : "time is over");
  return parts.join(", ");
}

// listen lets the pointer and the keyboard choose ports on the map. choose is called with the port that was chosen, or null.
export function listen(view, now, choose) {
  const map = $("map");
  const tip = $("map-tip");
  const hide = () => tip.classList.remove("is-shown");

  map.addEventListener("pointermove", (event) => {
    const port = view.portAt(event.clientX, event.clientY);
    if (port === null || event.pointerType === "touch") return hide();
    tip.textContent = describe(port, view.ports, now());
    const isRight = event.clientX > window.innerWidth / 2;
    const x = isRight ? event.clientX - tip.offsetWidth - 14 : event.clientX + 14;
    tip.style.transform = `translate(${Math.max(4, x)}px, ${event.clientY + 16}px)`;
    tip.classList.add("is-shown");
  });
  map.addEventListener("pointerleave", hide);
  map.addEventListener("scroll", hide, { passive: true });
  map.addEventListener("click", (event) => {
    const port = view.portAt(event.clientX, event.clientY);
    if (port !== null) choose((view.focused = port));
  });
  map.addEventListener("focus", () => {
    if (view.ports) move(view.focused ?? view.selected ?? view.ports.start);
  });
  map.addEventListener("blur", () => view.draw());
  map.addEventListener("keydown", (event) => {
    if (!view.ports || event.altKey || event.metaKey) return;
    const next = target(event);
    if (next !== null) move(next);
    else if (event.key === "Enter" || event.key === " ") choose(view.focused);
    else if (event.key === "Escape") choose(null);
    else if (event.key === "+" || event.key === "=") view.zoom(1);
    else if (event.key === "-") view.zoom(-1);
    else return;
    event.preventDefault();
  });

  function move(port) {
    const { start, end } = view.ports;
    const step = port < (view.focused ?? start) ? -1 : 1;
    const from = Math.min(end, Math.max(start, port));
    view.focused = nextOf(from, step) ?? nextOf(from, -step);
    view.reveal(view.focused);
    $("map-at").textContent = describe(view.focused, view.ports, now());
  }

  // nextOf returns the nearest port that the service has, from a port on: there may be none, since ports drain away.
  function nextOf(from, step) {
    let to = from;
    while (to >= view.ports.start && to <= view.ports.end && !view.ports.has(to)) to += step;
    return view.ports.has(to) ? to : null;
  }

  // target returns where a key leads, or null if it leads nowhere.
  function target(event) {
    const at = view.focused ?? view.ports.start;
    const { columns, h, ratio } = view.layout;
    const page = Math.max(1, Math.floor((map.clientHeight * ratio) / h)) * columns;
    if (event.ctrlKey && event.key === "ArrowRight") return nextHeld(at, 1);
    if (event.ctrlKey && event.key === "ArrowLeft") return nextHeld(at, -1);
    switch (event.key) {
      case "ArrowRight": return at + 1;
      case "ArrowLeft": return at - 1;
      case "ArrowDown": return at + columns;
      case "ArrowUp": return at - columns;
      case "PageDown": return at + page;
      case "PageUp": return at - page;
      case "Home": return view.ports.start;
      case "End": return view.ports.end;
      default: return null;
    }
  }

  // nextHeld returns the nearest port that is not free and not of the same holder.
  function nextHeld(at, step) {
    const here = view.ports.at(at);
    for (let port = at + step; port >= view.ports.start && port <= view.ports.end; port += step) {
      const entry = view.ports.at(port);
      if (entry && entry !== here) return entry.start;
    }
    return at;
  }
}
