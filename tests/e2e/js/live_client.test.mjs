// Convex's ConvexClient (the one without React), unmodified, over its socket.
import assert from "node:assert/strict";
import test, { after } from "node:test";

import { BaseConvexClient, ConvexClient } from "convex/browser";
import { anyApi as api } from "convex/server";
import { ConvexError } from "convex/values";
import WebSocket from "./websocket.mjs";

import { URL, pause, unique, until } from "./support.mjs";

const client = new ConvexClient(URL, { logger: false });
const other = new ConvexClient(URL, { logger: false });
after(() => Promise.all([client.close(), other.close()]));

function watch(reference, args, from = client) {
  const seen = { values: [], errors: [] };
  seen.stop = from.onUpdate(
    reference,
    args,
    (value) => seen.values.push(value),
    (error) => seen.errors.push(error),
  );
  return seen;
}

test("a subscriber is told of another client's write", async () => {
  const channel = unique("live");
  const seen = watch(api.messages.bodies, { channel });
  await until(() => seen.values.length === 1);
  assert.deepEqual(seen.values[0], []);
  await other.mutation(api.messages.send, { channel, author: "bob", body: "hi" });
  await until(() => seen.values.length === 2);
  assert.deepEqual(seen.values[1], ["hi"]);
  seen.stop();
});

test("a subscriber is not told of writes elsewhere", async () => {
  const channel = unique("live");
  const seen = watch(api.messages.bodies, { channel });
  await until(() => seen.values.length === 1);
  await other.mutation(api.messages.send, { channel: unique("live"), author: "bob", body: "hi" });
  await pause(200);
  assert.equal(seen.values.length, 1);
  seen.stop();
});

test("edits and deletions are told like inserts", async () => {
  const channel = unique("live");
  const seen = watch(api.messages.bodies, { channel });
  const messageId = await client.mutation(api.messages.send, { channel, author: "a", body: "one" });
  await client.mutation(api.messages.edit, { messageId, body: "two" });
  await client.mutation(api.messages.remove, { messageId });
  await until(() => seen.values.length > 1 && seen.values.at(-1).length === 0);
  seen.stop();
});

test("an own write is there when its promise resolves", async () => { // F115
  const name = unique("live");
  const seen = watch(api.counters.value, { name });
  await until(() => seen.values.length === 1);
  for (let i = 1; i <= 20; i++) {
    assert.equal(await client.mutation(api.counters.increment, { name }), i);
    assert.equal(client.client.localQueryResult("counters:value", { name }), i);
  }
  await until(() => seen.values.at(-1) === 20);
  assert.deepEqual(seen.values, [...seen.values].sort((a, b) => a - b), "values never go back");
  seen.stop();
});

test("a live query fails and recovers with the data", async () => {
  const name = unique("live");
  const seen = watch(api.failures.whenCounterIsOdd, { name });
  await until(() => seen.values.at(-1) === 0);
  await client.mutation(api.counters.increment, { name });
  await until(() => seen.errors.length === 1);
  assert.ok(seen.errors[0] instanceof ConvexError);
  assert.deepEqual(seen.errors[0].data, { odd: 1 });
  await client.mutation(api.counters.increment, { name });
  await until(() => seen.values.at(-1) === 2);
  seen.stop();
});

test("mutations and actions fail with their data", async () => {
  await assert.rejects(
    client.mutation(api.messages.send, { channel: "x", author: "a", body: "" }),
    (error) => {
      assert.deepEqual(error.data, { code: "empty", field: "body" });
      return true;
    },
  );
  await assert.rejects(client.action(api.failures.inAction, {}), (error) => {
    assert.equal(error.data, "action refused");
    return true;
  });
  await assert.rejects(client.mutation("messages:noSuchThing", {}), /Could not find public function/);
});

test("actions do not wait for each other", async () => {
  const from = Date.now();
  const answers = await Promise.all(
    Array.from({ length: 5 }, () => client.action(api.people.wait, { seconds: 0.4 })),
  );
  assert.equal(answers.length, 5);
  assert.ok(Date.now() - from < 1500, `took ${Date.now() - from} ms`);
});

test("a slow action does not hold up a mutation", async () => {
  const slow = client.action(api.people.wait, { seconds: 0.5 });
  const name = unique("live");
  const first = await Promise.race([
    slow.then(() => "action"),
    client.mutation(api.counters.increment, { name }).then(() => "mutation"),
  ]);
  assert.equal(first, "mutation");
  await slow;
});

test("two queries of one client are always of one instant", async () => { // F114
  await client.mutation(api.accounts.openAccount, { owner: unique("live"), cents: 100 });
  const owner = unique("live");
  await client.mutation(api.accounts.openAccount, { owner, cents: 5000 });
  let told = 0;
  const sums = new Set();
  const base = new BaseConvexClient(
    URL,
    () => {
      const checking = base.localQueryResult("accounts:checkingTotal", {});
      const savings = base.localQueryResult("accounts:savingsTotal", {});
      if (checking === undefined || savings === undefined) return;
      told += 1;
      sums.add(checking + savings);
    },
    { webSocketConstructor: WebSocket, logger: false, unsavedChangesWarning: false },
  );
  base.subscribe("accounts:checkingTotal", {});
  base.subscribe("accounts:savingsTotal", {});
  await until(() => told > 0);
  for (let i = 0; i < 50; i++) {
    await other.mutation(api.accounts.transfer, { giver: owner, taker: owner, cents: i % 7 });
  }
  await until(() => told > 5);
  assert.equal(sums.size, 1, `sums seen: ${[...sums]}`);
  await base.close();
});

test("pages stay whole while rows are inserted into them", async () => {
  const channel = unique("live");
  await client.mutation(api.messages.sendMany, { channel, count: 12 });
  let latest;
  const unsubscribe = client.onPaginatedUpdate_experimental(
    api.messages.pageOfChannel,
    { channel },
    { initialNumItems: 5 },
    (result) => (latest = result),
  );
  await until(() => latest?.results?.length === 5);
  unsubscribe.getCurrentValue();
  latest.loadMore(5);
  await until(() => latest.results.length === 10);
  await other.mutation(api.messages.send, { channel, author: "b", body: "new" });
  await until(() => latest.results.length === 11);
  assert.equal(latest.results[0].body, "new");
  const ids = latest.results.map((message) => message._id);
  assert.equal(new Set(ids).size, 11, "no row twice");
  latest.loadMore(50);
  await until(() => latest.status === "Exhausted");
  assert.equal(latest.results.length, 13);
  unsubscribe();
});

test("a result of six million characters arrives", async () => {
  const value = await client.query(api.values.large, { characters: 6_000_000 });
  assert.equal(value.length, 6_000_000);
});

test("a result of twelve million characters arrives in pieces", async () => { // C120
  const pieces = [];
  class Noted extends WebSocket {
    set onmessage(take) {
      super.onmessage = (message) => {
        pieces.push(JSON.parse(message.data).type);
        take(message);
      };
    }
  }
  let held;
  const base = new BaseConvexClient(
    URL,
    () => (held = base.localQueryResult("values:large", { characters: 12_000_000 })),
    { webSocketConstructor: Noted, logger: false, unsavedChangesWarning: false },
  );
  base.subscribe("values:large", { characters: 12_000_000 });
  await until(() => held !== undefined);
  assert.equal(held.length, 12_000_000);
  assert.deepEqual(pieces, Array(3).fill("TransitionChunk"));
  await base.close();
});

test("one question asked twice is answered for both", async () => {
  const channel = unique("live");
  const first = watch(api.messages.bodies, { channel });
  const second = watch(api.messages.bodies, { channel }, other);
  await until(() => first.values.length && second.values.length);
  await client.mutation(api.messages.send, { channel, author: "a", body: "both" });
  await until(() => first.values.at(-1).length === 1 && second.values.at(-1).length === 1);
  first.stop();
  await client.mutation(api.messages.send, { channel, author: "a", body: "one" });
  await until(() => second.values.at(-1).length === 2);
  assert.equal(first.values.at(-1).length, 1, "an ended subscription is silent");
  second.stop();
});
