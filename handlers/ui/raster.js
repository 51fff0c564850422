// The pixels of the map. The tiles of all ports that are seen are copied into one picture: however the states are mixed, and however
// many ports there are, a frame costs about as many writes as the map has pixels.
import { CODES, codeOf, tile } from "./states.js";

const DIM = 0.2; // how much is left of a port that does not match the search

export class Raster {
  #layout;
  #tiles; // by variant: their pixels
  #picture;
  #pixels; // those of the picture

  // width and height are those of the canvas in device pixels.
  constructor(layout, colours, width, height) {
    this.#layout = layout;
    this.#tiles = tilesOf(layout, colours);
    this.#picture = new ImageData(width, height);
    this.#pixels = new Uint32Array(this.#picture.data.buffer);
  }

  // paint returns the picture of the rows from first to last, if the map is scrolled by top device pixels. matches says what is not
  // dimmed; it is null if nothing is.
  paint(ports, matches, now, top, first, last) {
    const { h, pad, columns } = this.#layout;
    this.#pixels.fill(0);
    for (let row = first; row <= last; row++) {
      const from = ports.start + row * columns;
      const to = Math.min(ports.end, from + columns - 1);
      const y = pad - top + row * h;
      for (let port = from; port <= to; port++) {
        if (!ports.has(port)) continue;
        const entry = ports.at(port);
        const isDim = matches !== null && !matches(port, entry);
        const isJoined = entry !== null && entry.end > port && port < to;
        this.#copy(variant(codeOf(entry, now), ports.drains(port), isDim, isJoined), port - from, y);
      }
    }
    return this.#picture;
  }

  // copy copies a tile to a column, at a height that may be partly outside of the picture.
  #copy(number, column, y) {
    const { w, h, gutter } = this.#layout;
    const pixels = this.#tiles[number];
    const { width, height } = this.#picture;
    const last = Math.min(h, height - y);
    for (let line = Math.max(0, -y); line < last; line++) {
      let to = (y + line) * width + gutter + column * w;
      for (let from = line * w; from < (line + 1) * w; from++) this.#pixels[to++] = pixels[from];
    }
  }
}

const variant = (code, isDraining, isDim, isJoined) => code * 8 + (isDraining ? 4 : 0) + (isDim ? 2 : 0) + (isJoined ? 1 : 0);

// tilesOf draws all tiles: of each code, draining or not, dimmed or not, and joined to the next port of a block or not.
function tilesOf({ w, h, gap, hasText }, colours) {
  const tiles = [];
  for (let number = 0; number < 2 * CODES; number++) {
    const [code, isDraining] = [number >> 1, number % 2 === 1];
    const drawn = tile(code, w, h, gap, colours, { hasText, isDraining }).getContext("2d").getImageData(0, 0, w, h);
    for (const isDim of [false, true]) {
      for (const isJoined of [false, true]) {
        const pixels = new Uint8ClampedArray(drawn.data);
        if (isDim) for (let i = 3; i < pixels.length; i += 4) pixels[i] *= DIM;
        const tilePixels = new Uint32Array(pixels.buffer);
        if (isJoined) join(tilePixels, w, h, gap);
        tiles[variant(code, isDraining, isDim, isJoined)] = tilePixels;
      }
    }
  }
  return tiles;
}

// join continues a tile into the gap on its right.
function join(pixels, w, h, gap) {
  for (let y = 0; y < h; y++) {
    for (let x = w - gap; x < w; x++) pixels[y * w + x] = pixels[y * w + w - gap - 1];
  }
}
