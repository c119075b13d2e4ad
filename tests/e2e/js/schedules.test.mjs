// Scheduled functions as a page sees them: Convex's own socket client, unmodified.
import assert from "node:assert/strict";
import test, { afterEach } from "node:test";

import { ConvexClient } from "convex/browser";
import { anyApi as api } from "convex/server";

import { URL, unique, until } from "./support.mjs";

let open = [];
afterEach(async () => {
  for (const client of open) await client.close();
  open = [];
});

function connect() {
  const client = new ConvexClient(URL);
  open.push(client);
  return client;
}

/** Every state of a job that a live query shows, each once. */
function watch(client, id) {
  const seen = [];
  client.onUpdate(api.reminders.status, { id }, (job) => {
    if (job && seen.at(-1)?.state.kind !== job.state.kind) seen.push(job);
  });
  return seen;
}

test("a mutation schedules, and a live query sees the job and its effect", async () => {
  const client = connect();
  const owner = unique("owner");
  let texts;
  client.onUpdate(api.reminders.delivered, { owner }, (value) => (texts = value));
  const asked = Date.now();
  const id = await client.mutation(api.reminders.remind, { owner, text: "tea", seconds: 0.5 });
  const seen = watch(client, id);
  await until(() => texts?.length === 1);
  assert.ok(Date.now() - asked >= 490);
  await until(() => seen.at(-1)?.state.kind === "success");
  const [first, last] = [seen[0], seen.at(-1)];
  assert.deepEqual(seen.map((job) => job.state.kind), ["pending", "success"]);
  assert.deepEqual(first.args, [{ owner, text: "tea" }]);
  assert.equal(first.name, "reminders.js:deliver");
  assert.equal(first.completedTime, undefined);
  assert.ok(last.completedTime >= last.scheduledTime);
  assert.deepEqual(texts, ["tea"]);
});

test("a job that is called off never happens", async () => {
  const client = connect();
  const owner = unique("owner");
  const id = await client.mutation(api.reminders.remind, { owner, text: "no", seconds: 0.4 });
  const seen = watch(client, id);
  await until(() => seen.length === 1);
  await client.mutation(api.reminders.callOff, { id });
  await until(() => seen.at(-1).state.kind === "canceled");
  await new Promise((resolve) => setTimeout(resolve, 600));
  assert.deepEqual(await client.query(api.reminders.delivered, { owner }), []);
});

test("an action that fails says why, to those who may read it", async () => {
  const client = connect();
  const owner = unique("owner");
  const id = await client.mutation(api.reminders.send, { owner });
  const seen = watch(client, id);
  await until(() => seen.at(-1)?.state.kind === "failed");
  assert.match(seen.at(-1).state.error, /^Uncaught ValueError: the mail server is down\n {4}at /);
  assert.deepEqual(await client.query(api.reminders.delivered, { owner }), ["before the failure"]);
});
