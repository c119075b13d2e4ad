// How long a ConvexClient stays away after the server has closed its socket. Argument: the URL.
// Tells `lost` and `back` with the time (ms) at which it noticed.
import { ConvexClient } from "convex/browser";
import { anyApi as api } from "convex/server";

import { orders, report } from "./support.mjs";

const client = new ConvexClient(process.argv[2], { logger: false });
let isConnected = false;
client.subscribeToConnectionState(({ isWebSocketConnected }) => {
  if (isWebSocketConnected === isConnected) return;
  isConnected = isWebSocketConnected;
  report(isConnected ? "back" : "lost", { at: performance.now() });
});
const next = orders();
for (;;) {
  const order = await next();
  if (order.order === "log-in") {
    client.setAuth(async () => order.token);
  } else if (order.order === "flood") {
    for (let number = 0; number < order.count; number++) {
      client.mutation(api.people.write, { text: `${number}` }).catch(() => {});
    }
  } else {
    break;
  }
}
process.exit(0);
