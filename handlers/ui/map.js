// The map of a service on a canvas. The canvas is as large as what is seen of it, whatever the number of ports, and is drawn at most
// once a frame, and only after something changed.
import { $ } from "./dom.js";
import { SIZES, bestSize, layOut } from "./layout.js";
import { Raster } from "./raster.js";
import { palette } from "./states.js";

const FLASH = 1400; // ms for which a change is marked
const MOST_FLASHES = 400;

export class MapView {
  ports = null;
  layout = null;
  focused = null; // the port that the keyboard is at
  selected = null;
  #scroller = $("map");
  #canvas = $("map-canvas");
  #spacer = $("map-spacer");
  #context = this.#canvas.getContext("2d", { willReadFrequently: true }); // it gets pixels that were made here
  #raster = null;
  #colours = null;
  #matches = null; // whether a port and its entry match the search
  #flashes = new Map(); // port -> when it changed
  #frame = 0;
  #size = null; // that was chosen, or null for the best
  #now;
  #calm = matchMedia("(prefers-reduced-motion: reduce)");

  // now returns the time of the server.
  constructor(now) {
    this.#now = now;
    this.#scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.arrange()).observe(this.#scroller.parentElement);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.arrange());
    $("zoom-in").addEventListener("click", () => this.zoom(1));
    $("zoom-out").addEventListener("click", () => this.zoom(-1));
  }

  // show shows the ports of another service, or null for none.
  show(ports) {
    this.ports = ports;
    this.focused = this.selected = null;
    this.#flashes.clear();
    this.#size = null;
    this.#scroller.scrollTop = 0;
    this.arrange();
  }

  // zoom takes the next larger or smaller size of cells, and keeps the port in the middle where it is.
  zoom(step) {
    if (!this.layout) return;
    const middle = this.selected ?? this.focused ?? this.#portAtTop();
    this.#size = Math.min(SIZES.length - 1, Math.max(0, this.layout.size + step));
    this.arrange();
    this.reveal(middle, true);
  }

  // arrange places all cells anew, after a change of width, theme or size.
  arrange() {
    const width = this.#scroller.clientWidth;
    if (!this.ports || !width) return;
    const ratio = window.devicePixelRatio || 1;
    const height = Math.max(200, Math.round(window.innerHeight * 0.52));
    const size = this.#size ?? bestSize(this.ports.size, width - 14, height, ratio);
    this.layout = layOut(this.ports.size, size, width - 14, ratio); // a scroll bar may come
    const seen = Math.min(height, Math.ceil(this.layout.height));
    this.#scroller.style.height = `${seen}px`;
    this.#spacer.style.height = `${this.layout.height}px`;
    this.#canvas.width = Math.round(width * ratio);
    this.#canvas.height = Math.round(seen * ratio);
    this.#canvas.style.width = `${width}px`;
    this.#canvas.style.height = `${seen}px`;
    this.#colours = palette();
    this.#raster = new Raster(this.layout, this.#colours, this.#canvas.width, this.#canvas.height);
    $("zoom-in").disabled = size === SIZES.length - 1;
    $("zoom-out").disabled = size === 0;
    this.draw();
  }

  // search dims all ports that do not match, or none if matches is null.
  search(matches) {
    this.#matches = matches;
    this.draw();
  }

  // flash marks ports that have just changed.
  flash(start, end) {
    if (this.#calm.matches) return;
    for (let port = start; port <= end && this.#flashes.size < MOST_FLASHES; port++) this.#flashes.set(port, performance.now());
  }

  // reveal scrolls to a port if it is not in sight.
  reveal(port, toMiddle = false) {
    if (port === null || !this.ports?.has(port) || !this.layout) return;
    const { columns, h, ratio } = this.layout;
    const top = (Math.floor((port - this.ports.start) / columns) * h) / ratio;
    const seen = this.#scroller.clientHeight;
    const isInSight = top >= this.#scroller.scrollTop && top + h / ratio <= this.#scroller.scrollTop + seen;
    if (toMiddle || !isInSight) this.#scroller.scrollTop = top - seen / 2;
    this.draw();
  }

  // portAt returns the port at a place of the window, or null.
  portAt(clientX, clientY) {
    if (!this.layout) return null;
    const { w, h, gutter, pad, columns, ratio } = this.layout;
    const box = this.#scroller.getBoundingClientRect();
    const x = (clientX - box.left) * ratio - gutter;
    const y = (clientY - box.top + this.#scroller.scrollTop) * ratio - pad;
    const column = Math.floor(x / w);
    const port = this.ports.start + Math.floor(y / h) * columns + column;
    return column >= 0 && column < columns && y >= 0 && this.ports.has(port) ? port : null;
  }

  // draw draws before the next frame is shown.
  draw() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      if (this.ports && this.layout) this.#paint();
    });
  }

  #portAtTop() {
    return this.ports.start + Math.floor((this.#scroller.scrollTop * this.layout.ratio) / this.layout.h) * this.layout.columns;
  }

  #paint() {
    const { h, rows, gutter, pad, ratio } = this.layout;
    const c = this.#context;
    const top = Math.round(this.#scroller.scrollTop * ratio);
    const first = Math.max(0, Math.floor((top - pad) / h));
    const last = Math.min(rows - 1, Math.floor((top + this.#canvas.height) / h));
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.putImageData(this.#raster.paint(this.ports, this.#matches, this.#now(), top, first, last), 0, 0);
    c.setTransform(1, 0, 0, 1, gutter, pad - top);
    if (this.layout.hasText) this.#paintTexts(c, first, last);
    this.#paintGutter(c, first, last);
    this.#paintFlashes(c, first, last);
    if (this.selected !== null) this.#ringEntry(c, this.selected, this.#colours.mark);
    if (this.focused !== null && document.activeElement === this.#scroller) this.#ring(c, this.focused, this.#colours.ink, 2);
  }

  #paintTexts(c, first, last) {
    const { w, h, columns } = this.layout;
    const { start, end } = this.ports;
    const until = Math.min(end, start + (last + 1) * columns - 1);
    for (let port = start + first * columns; port <= until; port++) {
      if (!this.ports.has(port)) continue;
      const offset = port - start;
      this.#paintText(c, port, this.ports.at(port), (offset % columns) * w, Math.floor(offset / columns) * h);
    }
  }

  #paintText(c, port, entry, x, y) {
    const { w, h, gap, ratio, hasName } = this.layout;
    const isDim = this.#matches !== null && !this.#matches(port, entry);
    c.globalAlpha = isDim ? 0.35 : 1;
    c.textBaseline = "middle";
    c.textAlign = "left";
    c.fillStyle = entry ? this.#colours.ink : this.#colours.quiet;
    c.font = `${entry ? 600 : 400} ${11.5 * ratio}px ui-monospace, "DejaVu Sans Mono", monospace`;
    const left = x + 9 * ratio;
    c.fillText(port, left, y + (hasName && entry?.name ? h * 0.29 : (h - gap) / 2));
    if (hasName && entry?.name) {
      c.font = `400 ${11.5 * ratio}px system-ui, sans-serif`;
      const text = entry.name.length > 17 ? `${entry.name.slice(0, 16)}…` : entry.name;
      c.fillText(text, left, y + h * 0.65, w - gap - 14 * ratio);
    }
    c.globalAlpha = 1;
  }

  #paintGutter(c, first, last) {
    const { h, columns, ratio } = this.layout;
    const every = Math.max(1, Math.ceil((15 * ratio) / h));
    c.fillStyle = this.#colours.quiet;
    c.font = `${11 * ratio}px ui-monospace, "DejaVu Sans Mono", monospace`;
    c.textAlign = "right";
    c.textBaseline = "middle";
    for (let row = first - (first % every); row <= last; row += every) {
      const middle = row * h + Math.max(h / 2, 6 * ratio);
      c.fillText(this.ports.start + row * columns, -9 * ratio, middle);
    }
  }

  #paintFlashes(c, first, last) {
    const now = performance.now();
    const { columns } = this.layout;
    for (const [port, since] of this.#flashes) {
      const age = (now - since) / FLASH;
      const row = Math.floor((port - this.ports.start) / columns);
      if (age >= 1 || !this.ports.has(port)) this.#flashes.delete(port);
      else if (row >= first && row <= last) this.#ring(c, port, this.#colours.mark, 4 * (1 - age), 1 - age);
    }
    if (this.#flashes.size) this.draw();
  }

  // ringEntry marks all ports of the one who has a port, row by row, with a line of the ground between.
  #ringEntry(c, port, colour) {
    const { columns } = this.layout;
    const { start, end } = this.ports.at(port) ?? { start: port, end: port };
    for (let from = Math.max(start, this.ports.start); from <= Math.min(end, this.ports.end); ) {
      const to = Math.min(end, this.ports.end, from + columns - 1 - ((from - this.ports.start) % columns));
      this.#ring(c, from, this.#colours.panel, 5, 1, to);
      this.#ring(c, from, colour, 2.5, 1, to);
      from = to + 1;
    }
  }

  // ring draws a line around a port, or around the ports of a row from there to another.
  #ring(c, port, colour, width, alpha = 1, to = port) {
    if (!this.ports.has(port)) return;
    const { w, h, gap, columns, ratio } = this.layout;
    const offset = port - this.ports.start;
    const out = ratio;
    c.globalAlpha = alpha;
    c.strokeStyle = colour;
    c.lineWidth = Math.max(1, width * ratio);
    const [x, y] = [(offset % columns) * w, Math.floor(offset / columns) * h];
    c.strokeRect(x - out, y - out, (to - port + 1) * w - gap + 2 * out, h - gap + 2 * out);
    c.globalAlpha = 1;
  }
}
