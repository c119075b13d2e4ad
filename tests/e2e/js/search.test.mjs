// Text search by npm's clients, over HTTP and live.
import assert from "node:assert/strict";
import test, { after } from "node:test";

import { ConvexClient, ConvexHttpClient } from "convex/browser";
import { anyApi as api } from "convex/server";

import WebSocket from "./websocket.mjs";
import { URL, until } from "./support.mjs";

globalThis.WebSocket ??= WebSocket;
const overHttp = new ConvexHttpClient(URL, { logger: false });
const live = new ConvexClient(URL, { logger: false, unsavedChangesWarning: false });
after(() => live.close());

test("what is typed is found, and what changes is told", async () => {
  const seen = [];
  const stop = live.onUpdate(api.notes.find, { text: "gre" }, (found) => seen.push(found));
  await until(() => seen.length === 1);
  assert.deepEqual(seen[0], []);
  const [first] = await overHttp.mutation(api.notes.add, {
    folder: "x",
    texts: ["green tea", "black tea"],
  });
  await until(() => seen.length === 2);
  assert.deepEqual(seen[1], ["green tea"]);
  await overHttp.mutation(api.notes.remove, { id: first });
  await until(() => seen.length === 3);
  assert.deepEqual(seen[2], []);
  stop();
});

test("a mutation finds what it has just written, and so does a query after it", async () => {
  for (let n = 0; n < 20; n++) {
    assert.deepEqual(await live.mutation(api.notes.addAndFind, { text: `fresh${n}x` }), [
      `fresh${n}x`,
    ]);
    assert.deepEqual(await overHttp.query(api.notes.find, { text: `fresh${n}x` }), [`fresh${n}x`]);
  }
});

test("a search without text to search for is refused in Convex's words", async () => {
  await assert.rejects(overHttp.query(api.notes.findWrongly, {}), (error) => {
    assert.match(
      error.message,
      /Search query against notes\.by_text does not contain any search filters\./,
    );
    return true;
  });
});
