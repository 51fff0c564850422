// Where the ports of a map are: rows of cells, from left to right, all in device pixels so that cells are sharp.

// The sizes of a cell in CSS pixels, from the smallest to those with room for the port, and for its holder's name too.
export const SIZES = [
  [4, 4], [5, 5], [6, 6], [8, 8], [10, 10], [13, 13], [16, 16], [20, 20], [46, 26], [124, 38],
];
const SMALLEST = 1; // of those that are chosen unasked
const GUTTER = 52; // CSS pixels for the ports at which rows begin
const PAD = 4; // CSS pixels above the first row and below the last
const MOST_STRETCHED = 1.5;

// layOut places a number of ports in a width. size is an index of SIZES.
export function layOut(ports, size, width, ratio) {
  const [least, h] = SIZES[size].map((side) => Math.max(2, Math.round(side * ratio)));
  const gap = Math.max(1, Math.round((SIZES[size][0] < 8 ? 1 : SIZES[size][0] < 24 ? 2 : 4) * ratio));
  const gutter = Math.round(GUTTER * ratio);
  const fits = Math.max(1, Math.floor((width * ratio - gutter) / least));
  const columns = fits < 10 ? Math.min(fits, 5) : fits - (fits % 10); // rows that begin at round ports are easier to read
  const rows = Math.ceil(ports / columns);
  const wide = Math.floor((width * ratio - gutter) / columns);
  const w = Math.min(wide, Math.floor(least * MOST_STRETCHED)); // to the width that there is
  const pad = Math.round(PAD * ratio);
  const [hasText, hasName] = [SIZES[size][0] >= 24, SIZES[size][0] >= 100];
  return { w, h, gap, gutter, pad, columns, rows, ratio, size, hasText, hasName, height: (rows * h + 2 * pad) / ratio };
}

// bestSize returns the largest size at which all ports are seen at once, or else the smallest that is still easy to hit.
export function bestSize(ports, width, height, ratio) {
  for (let size = SIZES.length - 1; size > SMALLEST; size--) {
    if (layOut(ports, size, width, ratio).height <= height) return size;
  }
  return SMALLEST;
}
