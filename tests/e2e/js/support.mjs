// What every script of this folder needs: its arguments, a wait for a condition, and the line
// protocol to the Python test that started it.
import { createInterface } from "node:readline";

export const [URL] = JSON.parse(process.env.E2E_ARGUMENTS ?? "[null]");

let counted = 0;
/** A name no other test of this run uses. */
export const unique = (prefix) => `${prefix}-${process.pid}-${counted++}`;

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Wait until `condition` returns something truthy, and return it. */
export async function until(condition, what = condition.toString(), ms = 20_000) {
  const giveUp = Date.now() + ms;
  for (;;) {
    const answer = await condition();
    if (answer) return answer;
    if (Date.now() > giveUp) throw new Error(`still waiting after ${ms} ms for: ${what}`);
    await pause(5);
  }
}

/** Tell the Python test that something happened. */
export const report = (event, details = {}) =>
  process.stdout.write(`${JSON.stringify({ event, ...details })}\n`);

/** Orders of the Python test, in their order. */
export function orders() {
  const waiting = [];
  const arrived = [];
  createInterface({ input: process.stdin }).on("line", (line) => {
    const order = JSON.parse(line);
    const next = waiting.shift();
    if (next) next(order);
    else arrived.push(order);
  });
  return () =>
    arrived.length ? Promise.resolve(arrived.shift()) : new Promise((done) => waiting.push(done));
}
