// Convex's npm clients, each running its part of a plan; what they saw goes out as one line of JSON.
// Arguments: the folder with node_modules, the server's URL. One order: run, with a plan per client.
//
// Times are of the system's monotonic clock, in milliseconds, as Python's time.monotonic() tells it.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, url] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const { BaseConvexClient, ConvexHttpClient } = require("convex/browser");
const { orders, report, until } = await import(pathToFileURL(`${folder}/support.mjs`));
const { default: WebSocket } = await import(pathToFileURL(`${folder}/websocket.mjs`));

const now = () => Number(process.hrtime.bigint()) / 1e6;
const history = [];

/** A client with a session: mutations and live queries on its socket, one-time queries by HTTP. */
async function play(name, steps, keys) {
  const half = keys.length / 2;
  const parts = [keys.slice(0, half), keys.slice(half)];
  let place = 0;
  let pushes = 0;
  let mutations = 0;
  const http = new ConvexHttpClient(url, { logger: false });
  // What is held when somebody looks: after a change, and after a mutation's promise.
  const look = (how, session = name, at = place++) => {
    const values = parts.map((part) => base.localQueryResult("txns:read", { keys: part }));
    if (values.includes(undefined)) return;
    pushes += 1;
    history.push({
      process: `${name} ${how}`,
      session,
      place: at,
      complete: now(),
      status: "ok",
      reads: parts.flatMap((part, i) => part.map((key, j) => [key, values[i][j]])),
    });
  };
  const base = new BaseConvexClient(url, () => look("push"), {
    webSocketConstructor: WebSocket,
    logger: false,
    unsavedChangesWarning: false,
  });
  for (const part of parts) base.subscribe("txns:read", { keys: part });
  await until(() => pushes > 0, "the first results");
  for (const { kind, ops } of steps) {
    const txn = { process: name, ops, invoke: now(), session: null };
    history.push(txn);
    try {
      txn.answers =
        kind === "mutation"
          ? await base.mutation("txns:txn", { ops })
          : await http.query("txns:look", { ops });
      txn.status = "ok";
    } catch (error) {
      if (error.data !== "as the client wanted") throw error;
      txn.status = "fail";
    }
    txn.complete = now();
    if (kind === "mutation" && txn.status === "ok") {
      // The push that ended it was told first. So its place is only known to lie before what is
      // held now: the two are a session of their own.
      txn.session = `${name} mutation ${mutations++}`;
      txn.place = 0;
      look("after its mutation", txn.session, 1);
      look("after its mutation");
    }
  }
  await base.close();
}

report("ready");
const { plan, keys } = await orders()();
await Promise.all(plan.map((steps, i) => play(`npm${i}`, steps, keys)));
report("done", { history });
await new Promise((done) => process.stdout.write("\n", done)); // more than a pipe holds at once
process.exit(0);
