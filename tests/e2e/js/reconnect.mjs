// A ConvexClient behind a proxy that its driver cuts. Orders: mutate, watch, quit.
import { ConvexClient } from "convex/browser";
import { anyApi as api } from "convex/server";

import { orders, report } from "./support.mjs";

const client = new ConvexClient(process.argv[2], { logger: false });
client.subscribeToConnectionState((state) =>
  report("connection", { connected: state.isWebSocketConnected, retries: state.connectionRetries }),
);

const next = orders();
report("ready");
for (;;) {
  const order = await next();
  if (order.order === "watch") {
    client.onUpdate(
      order.path,
      order.args,
      (value) => report("value", { value }),
      (error) => report("error", { message: error.message }),
    );
  } else if (order.order === "mutate") {
    client
      .mutation(api.counters.increment, { name: order.name })
      .then((result) => report("answered", { result, name: order.name }))
      .catch((error) => report("refused", { message: error.message }));
    report("asked");
  } else if (order.order === "act") {
    client
      .action(api.people.wait, { seconds: order.seconds })
      .then((result) => report("acted", { result }))
      .catch((error) => report("action-lost", { message: error.message }));
  } else {
    break;
  }
}
await client.close();
process.exit(0);
