// The states of a port, and how each is drawn. They differ in form and lightness too, not in colour alone.

// STATES are those that are told apart in words, with the code of their tile.
export const STATES = [
  { key: "free", code: 0, text: "free" },
  { key: "offered", code: 1, text: "offered" },
  { key: "allocated", code: 2, text: "allocated" },
  { key: "leased", code: 4, text: "leased" },
  { key: "cooling", code: 7, text: "cooling" },
  { key: "quarantined", code: 8, text: "quarantined" },
  { key: "draining", code: 2, text: "draining", isDraining: true }, // as well as offered, allocated or leased
];

// The time left from which a lease has the codes 3, 4 and 5. Below the last it has code 6.
const LEVELS = [86400e3, 3600e3, 300e3]; // a day, an hour, five minutes

export const CODES = 9;

// codeOf returns which tile an entry of the map has at a time of the server.
export function codeOf(entry, now) {
  if (!entry) return 0;
  if (entry.state !== "allocated") return { offered: 1, cooling: 7, quarantined: 8 }[entry.state] ?? 0;
  if (entry.until === null) return 2;
  const level = LEVELS.findIndex((least) => entry.until - now >= least);
  return level < 0 ? 6 : 3 + level;
}

// stateOf returns the state of an entry as words have it.
export function stateOf(entry) {
  const key = !entry ? "free" : entry.state === "allocated" && entry.until !== null ? "leased" : entry.state;
  return STATES.find((state) => state.key === key) ?? STATES[0];
}

// Palette reads the colours of the present theme from the style sheet.
export function palette() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["free", "offered", "allocated", "leased", "cooling", "quarantined", "ink", "quiet", "panel", "mark"];
  return Object.fromEntries(names.map((name) => [name, of(name)]));
}

// tile draws the tile of a code: w times h device pixels, of which a gap stays empty on the right and below. With room for text it
// is a card. The tile of a port that drains lacks a corner.
export function tile(code, w, h, gap, colours, { hasText = false, isDraining = false } = {}) {
  const canvas = document.createElement("canvas");
  canvas.width = w;
  canvas.height = h;
  const c = canvas.getContext("2d");
  const [width, height] = [w - gap, h - gap];
  if (hasText) card(c, code, width, height, colours);
  else cell(c, code, width, height, colours);
  if (isDraining) cut(c, width, height);
  return canvas;
}

// cell is a tile without text, down to 2 pixels.
function cell(c, code, w, h, colours) {
  const line = Math.max(1, Math.round(w / 7));
  c.fillStyle = c.strokeStyle = colours[colourOf(code)];
  if (code === 0 || code === 2) {
    c.fillRect(0, 0, w, h);
  } else if (code === 1) { // hollow
    c.fillRect(0, 0, w, h);
    c.clearRect(line, line, w - 2 * line, h - 2 * line);
  } else if (code <= 6) { // filled as far as time is left
    c.globalAlpha = 0.32;
    c.fillRect(0, 0, w, h);
    c.globalAlpha = 1;
    const left = Math.max(1, Math.round(h * (7 - code) * 0.21));
    c.fillRect(0, h - left, w, left);
  } else {
    c.globalAlpha = 0.22;
    c.fillRect(0, 0, w, h);
    c.globalAlpha = 1;
    c.lineWidth = Math.max(1, w / 6);
    stroke(c, [0, h, w, 0]); // a diagonal; a cross in quarantine
    if (code === 8) stroke(c, [0, 0, w, h]);
  }
}

// card is a tile with room for text: a soft ground, and the mark of its state on the left.
function card(c, code, w, h, colours) {
  const bar = Math.max(3, Math.round(h / 9));
  c.fillStyle = c.strokeStyle = colours[colourOf(code)];
  if (code === 0) {
    c.globalAlpha = 0.55;
    c.fillRect(0, 0, w, h);
    return;
  }
  c.globalAlpha = 0.18;
  c.fillRect(0, 0, w, h);
  c.globalAlpha = code === 2 ? 1 : 0.35;
  c.fillRect(0, 0, bar, h);
  c.globalAlpha = 1;
  c.lineWidth = Math.max(1, bar / 3);
  if (code === 1) c.strokeRect(c.lineWidth / 2, c.lineWidth / 2, w - c.lineWidth, h - c.lineWidth);
  if (code >= 3 && code <= 6) {
    const left = Math.round(h * (7 - code) * 0.21);
    c.fillRect(0, h - left, bar, left);
  }
  if (code >= 7) {
    const size = Math.min(w, h) * 0.3;
    const [x, y] = [w - size * 1.35, h - size * 1.35];
    c.lineWidth = Math.max(1.5, size / 6);
    stroke(c, [x, y + size, x + size, y]);
    if (code === 8) stroke(c, [x, y, x + size, y + size]);
  }
}

// cut takes the upper right corner away.
function cut(c, w, h) {
  const side = Math.min(w, h) * 0.6;
  c.globalCompositeOperation = "destination-out";
  c.beginPath();
  c.moveTo(w - side, 0);
  c.lineTo(w, 0);
  c.lineTo(w, side);
  c.fill();
}

const colourOf = (code) => ["free", "offered", "allocated", "leased", "leased", "leased", "leased", "cooling", "quarantined"][code];

function stroke(c, [x1, y1, x2, y2]) {
  c.beginPath();
  c.moveTo(x1, y1);
  c.lineTo(x2, y2);
  c.stroke();
}
