// Vector search through actions, by npm's clients.
import assert from "node:assert/strict";
import test, { after } from "node:test";

import { ConvexClient, ConvexHttpClient } from "convex/browser";
import { anyApi as api } from "convex/server";

import { URL } from "./support.mjs";

const overHttp = new ConvexHttpClient(URL, { logger: false });
const live = new ConvexClient(URL, { logger: false, unsavedChangesWarning: false });
after(() => live.close());

const FOODS = [
  { name: "pho", cuisine: "vietnamese", embedding: [1, 0, 0] },
  { name: "laksa", cuisine: "malay", embedding: [1, 1, 0], origin: { country: "my" } },
  { name: "rendang", cuisine: "malay", embedding: [0, 1, 0], origin: { country: "id" } },
  { name: "pizza", cuisine: "italian", embedding: [-1, 0, 0], origin: { country: "it" } },
];

test("an action gives the nearest, best first", async () => {
  await overHttp.mutation(api.foods.add, { foods: FOODS });
  for (const client of [overHttp, live]) {
    const found = await client.action(api.foods.similar, { vector: [2, 0.5, 0] });
    assert.deepEqual(
      found.map((food) => food.name),
      ["pho", "laksa", "rendang", "pizza"],
    );
    assert.ok(Math.abs(found[0].score - 2 / Math.hypot(2, 0.5)) < 1e-6);
  }
});

test("filters are equalities or a union of them, also of nested fields", async () => {
  const names = async (args) =>
    (await live.action(api.foods.similar, { vector: [1, 0, 0], ...args })).map((food) => food.name);
  assert.deepEqual(await names({ cuisines: ["malay"] }), ["laksa", "rendang"]);
  assert.deepEqual(await names({ cuisines: ["malay", "italian"] }), ["laksa", "rendang", "pizza"]);
  assert.deepEqual(await names({ country: "my" }), ["laksa"]);
  assert.deepEqual(await names({ cuisines: ["vietnamese"], country: "it" }), ["pho", "pizza"]);
  assert.deepEqual(await names({ limit: 1 }), ["pho"]);
});

test("an action finds what it has just written", async () => {
  for (let n = 0; n < 20; n++) {
    const food = { name: `f${n}`, cuisine: "new", embedding: [n, 1, 5 + n] };
    const { made, found } = await live.action(api.foods.addAndFind, { food });
    assert.equal(found.length, 1);
    assert.equal(found[0]._id, made);
  }
});

test("a wrong length is refused in Convex's words", async () => {
  await assert.rejects(live.action(api.foods.similar, { vector: [1, 2] }), (error) => {
    assert.match(error.message, /Expected a vector with dimensions 3, received 2\./);
    return true;
  });
});
