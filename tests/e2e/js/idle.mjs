// A ConvexClient whose clock runs fast: what it would do after minutes of silence it does soon.
// Arguments: the server's URL, and how much faster its timers are. Orders: watch, mutate, quit.
const [url, speed] = [process.argv[2], Number(process.argv[3])];
const startTimer = globalThis.setTimeout;
globalThis.setTimeout = (work, ms, ...rest) => startTimer(work, (ms ?? 0) / speed, ...rest);

const { ConvexClient } = await import("convex/browser");
const { anyApi: api } = await import("convex/server");
const { orders, report } = await import("./support.mjs");

const client = new ConvexClient(url, { logger: false });
const next = orders();
for (;;) {
  const order = await next();
  if (order.order === "watch") {
    client.onUpdate(api.counters.value, { name: order.name }, (value) => report("value", { value }));
  } else if (order.order === "mutate") {
    const result = await client.mutation(api.counters.increment, { name: order.name });
    report("answered", { result });
  } else {
    break;
  }
}
await client.close();
process.exit(0);
