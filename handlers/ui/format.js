// How numbers and spans of time are written.

const grouped = new Intl.NumberFormat("en");

// count writes a number of things, with separators. Ports are written without.
export const count = (n) => grouped.format(n);

// plural writes a number of things and their word.
export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

// ports writes a row of ports.
export const ports = (start, end) => (start === end ? `${start}` : `${start}–${end}`);

// rangesOf returns the ranges of a service, also if there is one.
export const rangesOf = (service) => service.ranges ?? [{ start: service.start, end: service.end }];

// portsOf writes which ports a service has.
export const portsOf = (service) => rangesOf(service).map(({ start, end }) => ports(start, end)).join(", ");

// hasPort says whether a service has a port.
export const hasPort = (service, port) => rangesOf(service).some(({ start, end }) => port >= start && port <= end);

// percent writes a share. Only nothing is 0 %, and only all is 100 %.
export function percent(part, whole) {
  if (whole === 0 || part === 0) return "0 %";
  if (part >= whole) return "100 %";
  return `${Math.min(99, Math.max(1, Math.round((part / whole) * 100)))} %`;
}

const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

// span writes a number of milliseconds in its two largest units.
export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first < 0) return "0 s";
  const [unit, size] = units[first];
  const text = `${Math.floor(seconds / size)} ${unit}`;
  const next = units[first + 1];
  const rest = next ? Math.floor((seconds % size) / next[1]) : 0;
  return rest ? `${text} ${rest} ${next[0]}` : text;
}

// duration writes seconds as the API reads them: "1h30m".
export function duration(seconds) {
  let text = "";
  let rest = seconds;
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["m", 60]]) {
    if (rest >= size) text += `${Math.floor(rest / size)}${unit}`;
    rest %= size;
  }
  return rest || !text ? `${text}${rest}s` : text;
}
