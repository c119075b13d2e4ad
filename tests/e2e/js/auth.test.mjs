// Logging in with Convex's own clients, unmodified: ConvexProviderWithAuth in a page of jsdom, and
// ConvexHttpClient. Arguments: SERVER ISSUER.
import assert from "node:assert/strict";
import test, { after, afterEach } from "node:test";

import { JSDOM } from "jsdom";

const { window } = new JSDOM('<div id="page"></div>', { url: "http://127.0.0.1/" });
globalThis.window = window;
globalThis.document = window.document;
globalThis.navigator ??= window.navigator; // Node has one of its own from version 21 on
globalThis.WebSocket = window.WebSocket;
globalThis.IS_REACT_ACT_ENVIRONMENT = false;

const React = await import("react");
const { createRoot } = await import("react-dom/client");
const { flushSync } = await import("react-dom");
const convex = await import("convex/react");
const { ConvexHttpClient } = await import("convex/browser");
const { anyApi: api } = await import("convex/server");
const { URL, pause, unique, until } = await import("./support.mjs");
const [, ISSUER] = JSON.parse(process.env.E2E_ARGUMENTS);

const { createElement: h, useCallback, useMemo, useState } = React;
const silent = { log() {}, warn() {}, error() {}, logVerbose() {} };
let open = [];
afterEach(async () => {
  for (const close of open) await close();
  open = [];
});
after(() => window.close());

const issue = async (subject, seconds = 3600) =>
  (await fetch(`${ISSUER}/token?subject=${subject}&seconds=${seconds}&name=${subject}!`)).text();

/** A page of its own whose user logs in with tokens that `fetchToken` gives. */
function page(fetchToken) {
  const client = new convex.ConvexReactClient(URL, {
    logger: silent,
    unsavedChangesWarning: false,
  });
  const held = { fetches: [], states: [], client };
  function useAuth() {
    const [user, setUser] = useState(null);
    held.logIn = setUser;
    const fetchAccessToken = useCallback(
      async ({ forceRefreshToken }) => {
        held.fetches.push(forceRefreshToken);
        return fetchToken(user, forceRefreshToken, held.fetches.length);
      },
      [user],
    );
    return useMemo(
      () => ({ isLoading: false, isAuthenticated: user !== null, fetchAccessToken }),
      [user, fetchAccessToken],
    );
  }
  function Body() {
    Object.assign(held, convex.useConvexAuth());
    held.me = convex.useQuery(api.people.me);
    held.mine = convex.useQuery(api.people.mine);
    held.write = convex.useMutation(api.people.write);
    held.states.push(held.isAuthenticated);
    return h(convex.Authenticated, null, h("p", { id: "inside" }));
  }
  const place = window.document.createElement("div");
  held.isInside = () => place.querySelector("#inside") !== null;
  const root = createRoot(place);
  root.render(h(convex.ConvexProviderWithAuth, { client, useAuth }, h(Body)));
  open.push(async () => {
    flushSync(() => root.unmount());
    await client.close();
  });
  return held;
}

const user = (subject) => ({ subject, name: `${subject}!` });

test("logging in shows who it is, logging out nobody", async () => {
  const held = page((subject) => issue(subject));
  await until(() => held.me === null);
  assert.equal(held.isAuthenticated, false);
  assert.equal(held.isInside(), false);
  held.logIn("ann");
  await until(() => held.isAuthenticated && held.me?.subject === "ann");
  assert.deepEqual(held.me, user("ann"));
  await until(() => held.isInside());
  assert.equal(await held.write({ text: unique("note") }), "ann");
  held.logIn(null);
  await until(() => !held.isAuthenticated && held.me === null);
  await until(() => !held.isInside());
  await assert.rejects(held.write({ text: "x" }), (error) => error.data === "log in first");
});

test("another user sees nothing of the first, in the same page or another one", async () => {
  const [first, second] = [page((subject) => issue(subject)), page((subject) => issue(subject))];
  const note = unique("note");
  const [one, two] = [unique("one"), unique("two")];
  await until(() => first.logIn && second.logIn);
  first.logIn(one);
  second.logIn(two);
  await until(() => first.me?.subject === one && second.me?.subject === two);
  await first.write({ text: note });
  await until(() => first.mine?.includes(note));
  await second.write({ text: "own" });
  await until(() => second.mine?.includes("own"));
  assert.deepEqual(second.mine, ["own"]);
  first.logIn(two);
  await until(() => first.me?.subject === two && first.mine?.includes("own"));
  assert.deepEqual(first.mine, ["own"]);
});

test("a token is renewed ahead of its end, and nobody notices", async () => {
  const held = page((subject) => issue(subject, 12.5)); // the client renews ten seconds before
  await until(() => held.logIn);
  held.logIn("ann");
  await until(() => held.isAuthenticated && held.me);
  const before = held.fetches.length;
  const shown = held.states.length;
  await until(() => held.fetches.length >= before + 2);
  assert.ok(held.fetches.slice(1).every((forced) => forced));
  assert.equal(held.isAuthenticated, true);
  assert.deepEqual(held.me, user("ann"));
  assert.ok(held.states.slice(shown).every((state) => state), "never logged out in between");
});

test("C53: a token that ends unrenewed is replaced at the next occasion", async () => {
  let token;
  const held = page(async (subject, _forced, count) => {
    // The same token again makes the client plan no renewal.
    if (count <= 2) token ??= await issue(subject, 2);
    else token = await issue(subject);
    return token;
  });
  await until(() => held.logIn);
  held.logIn("ann");
  await until(() => held.isAuthenticated && held.me);
  await pause(2100);
  assert.equal(held.fetches.length, 2);
  const text = unique("late");
  assert.equal(await held.write({ text }), "ann");
  assert.ok(held.fetches.length >= 3);
  await until(() => held.mine?.includes(text) && held.isAuthenticated);
});

test("C52: a client with nothing but bad tokens gives up and goes on without", async () => {
  const held = page((_subject, _forced, count) => `bad.token.${count}`);
  await until(() => held.me === null);
  held.logIn("ann");
  await until(() => held.fetches.length >= 4);
  await pause(300);
  assert.equal(held.fetches.length, 4, "the first and three fresh ones");
  assert.equal(held.isAuthenticated, false);
  assert.ok(!held.states.includes(true));
  const value = await held.client.query(api.people.me, {});
  assert.equal(value, null, "it is connected, as nobody");
});

test("the HTTP client sends its token with every call", async () => {
  const client = new ConvexHttpClient(URL, { logger: false });
  assert.equal(await client.query(api.people.me), null);
  client.setAuth(await issue("ann"));
  assert.deepEqual(await client.query(api.people.me), user("ann"));
  assert.deepEqual(await client.action(api.people.whoActs), user("ann"));
  assert.equal(await client.mutation(api.people.write, { text: unique("http") }), "ann");
  client.setAuth("bad");
  await assert.rejects(client.query(api.people.me), /Could not parse JWT payload/);
  client.setAuth(await issue("ann", -1));
  await assert.rejects(client.query(api.people.me), /Could not verify OIDC token claim/);
  client.clearAuth();
  assert.equal(await client.query(api.people.me), null);
});
