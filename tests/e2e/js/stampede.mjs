// Many official clients, each on its own socket, all after one counter. Arguments: URL NAME CLIENTS TIMES.
import { ConvexClient } from "convex/browser";
import { anyApi as api } from "convex/server";

import { report, until } from "./support.mjs";

const [url, name, clients, times] = process.argv.slice(2);
const disconnects = [];
const all = Array.from(
  { length: Number(clients) },
  () =>
    new ConvexClient(url, {
      logger: false,
      onServerDisconnectError: (message) => disconnects.push(message),
    }),
);
const seen = all.map((client) => {
  const values = [];
  client.onUpdate(api.counters.value, { name }, (value) => values.push(value));
  return values;
});
await until(() => seen.every((values) => values.length > 0), "every subscription to answer");

const errors = [];
const results = [];
const from = performance.now();
await Promise.all(
  all.map(async (client) => {
    const asked = Array.from({ length: Number(times) }, () =>
      client.mutation(api.counters.increment, { name }).then(
        (result) => results.push(result),
        (error) => errors.push(error.message),
      ),
    );
    await Promise.all(asked);
  }),
);
const seconds = (performance.now() - from) / 1000;
const expected = Number(clients) * Number(times);
await until(() => seen.every((values) => values.at(-1) === expected), "every subscriber to see the end", 30_000);

report("done", {
  errors,
  disconnects,
  seconds,
  distinct: new Set(results).size,
  highest: Math.max(...results),
  goingBack: seen.filter((values) => values.some((value, i) => i && value < values[i - 1])).length,
});
await Promise.all(all.map((client) => client.close()));
process.exit(0);
