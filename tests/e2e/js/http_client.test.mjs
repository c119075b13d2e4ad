// Convex's ConvexHttpClient, unmodified.
import assert from "node:assert/strict";
import test from "node:test";

import { ConvexHttpClient } from "convex/browser";
import { anyApi as api } from "convex/server";
import { ConvexError } from "convex/values";

import { URL, unique } from "./support.mjs";

const client = new ConvexHttpClient(URL, { logger: false });

test("a mutation is seen by the next query", async () => {
  const channel = unique("http");
  const id = await client.mutation(api.messages.send, { channel, author: "ann", body: "hello" });
  const found = await client.query(api.messages.inChannel, { channel });
  assert.equal(found.length, 1);
  assert.equal(found[0]._id, id);
  assert.equal(found[0].body, "hello");
  assert.ok(Math.abs(found[0]._creationTime - Date.now()) < 60_000);
});

test("an action calls a mutation and a query", async () => {
  const channel = unique("http");
  assert.equal(await client.action(api.messages.relay, { channel, body: "over" }), "over");
});

test("every type of value makes the round trip", async () => { // V1
  const value = {
    none: null,
    yes: true,
    integral: 17,
    fraction: -0.25,
    tiny: 5e-324,
    negativeZero: -0,
    infinite: Infinity,
    big: 2n ** 62n,
    negativeBig: -(2n ** 63n),
    text: "blåbær 🫐",
    bytes: new Uint8Array([0, 255, 16]).buffer,
    list: [1, "two", [3.5]],
    object: { nested: { deep: true } },
  };
  assert.deepEqual(await client.query(api.values.echo, { value }), value);
  const key = await client.mutation(api.values.keep, { value });
  assert.deepEqual(await client.query(api.values.kept, { key }), value);
  assert.ok(Number.isNaN(await client.query(api.values.echo, { value: NaN })));
});

test("values made by Python arrive as their JavaScript twins", async () => {
  const made = await client.query(api.values.eachType, {});
  assert.equal(made.big, 2n ** 62n);
  assert.equal(made.integral, 17);
  assert.deepEqual(new Uint8Array(made.bytes), new Uint8Array([0, 255, 16]));
});

test("pages follow each other to the end", async () => {
  const channel = unique("http");
  await client.mutation(api.messages.sendMany, { channel, count: 25 });
  const bodies = [];
  let cursor = null;
  for (let pages = 0; pages < 10; pages++) {
    const page = await client.query(api.messages.pageOfChannel, {
      channel,
      paginationOpts: { numItems: 10, cursor },
    });
    bodies.push(...page.page.map((message) => message.body));
    cursor = page.continueCursor;
    if (page.isDone) break;
  }
  assert.deepEqual(bodies, Array.from({ length: 25 }, (_, i) => `message ${24 - i}`));
});

test("an error raised on purpose carries its data", async () => {
  for (const data of ["plain text", { code: "x", list: [1n] }, null, 7]) {
    await assert.rejects(client.query(api.failures.onPurpose, { data }), (error) => {
      assert.ok(error instanceof ConvexError);
      assert.deepEqual(error.data, data);
      return true;
    });
  }
});

test("any other error arrives as an error with its text", async () => {
  await assert.rejects(client.query(api.failures.byAccident, {}), (error) => {
    assert.ok(!(error instanceof ConvexError));
    assert.match(error.message, /^\[Request ID: [0-9a-f]{16}\] Server Error\n/);
    assert.match(error.message, /ValueError: secret detail/);
    return true;
  });
});

test("what a failed mutation wrote is not there", async () => {
  const channel = unique("http");
  await assert.rejects(client.mutation(api.failures.afterWriting, { channel }), ConvexError);
  assert.deepEqual(await client.query(api.messages.bodies, { channel }), []);
});

test("wrong calls say what is wrong", async () => {
  const cases = [
    [() => client.query("nowhere:nothing", {}), /Could not find public function for 'nowhere:nothing'/],
    [() => client.query(api.failures.hidden, {}), /Could not find public function/],
    [() => client.query(api.messages.send, {}), /Trying to execute messages.js:send as Query, but it is defined as Mutation/],
    [() => client.query(api.messages.inChannel, {}), /ArgumentValidationError/],
    [() => client.query(api.messages.inChannel, { channel: 5 }), /ArgumentValidationError/],
    [() => client.query(api.messages.inChannel, { channel: "a", extra: 1 }), /ArgumentValidationError/],
    [() => client.query(api.failures.wrongReturn, {}), /ReturnsValidationError/],
    [() => client.mutation(api.messages.remove, { messageId: "not an id" }), /ArgumentValidationError/],
    [() => client.mutation(api.failures.againstTheSchema, {}), /schema/i],
  ];
  for (const [call, text] of cases) await assert.rejects(call, text);
});

test("several queries can be asked at one instant", async () => {
  const name = unique("http");
  await client.mutation(api.counters.increment, { name });
  assert.equal(await client.consistentQuery(api.counters.value, { name }), 1);
  await client.mutation(api.counters.increment, { name });
  assert.equal(await client.consistentQuery(api.counters.value, { name }), 1);
  assert.equal(await client.query(api.counters.value, { name }), 2);
});

test("nobody is logged in without a token", async () => {
  assert.equal(await client.query(api.people.whoAmI, {}), null);
});

test("mutations of one client run in the order they were made", async () => { // F111
  const channel = unique("http");
  await Promise.all(
    Array.from({ length: 20 }, (_, i) =>
      client.mutation(api.messages.send, { channel, author: "ann", body: `${i}` }),
    ),
  );
  const bodies = await client.query(api.messages.bodies, { channel });
  assert.deepEqual(bodies, Array.from({ length: 20 }, (_, i) => `${i}`));
});
