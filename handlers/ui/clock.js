// The time of the server, which decides when leases end. The clock of this machine may be wrong.

let ahead = 0; // ms by which the server's clock is ahead of this one

// now returns the time of the server in Unix milliseconds.
export const now = () => Date.now() + ahead;

// adjust takes a time that the server gave in the answer to a call that was sent at a time of this clock.
export function adjust(serverTime, sent) {
  ahead = Date.parse(serverTime) - (sent + Date.now()) / 2;
}
