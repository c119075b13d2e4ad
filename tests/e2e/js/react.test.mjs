// Convex's React client and hooks, unmodified, in a page of jsdom.
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
const { anyApi: api } = await import("convex/server");
const { ConvexError } = await import("convex/values");
const { URL, unique, until } = await import("./support.mjs");

const { createElement: h, useState } = React;
const client = new convex.ConvexReactClient(URL, { logger: false, unsavedChangesWarning: false });
const other = new convex.ConvexReactClient(URL, { logger: false, unsavedChangesWarning: false });
after(async () => {
  await client.close();
  await other.close();
  window.close();
});

let roots = [];
afterEach(() => {
  for (const root of roots) flushSync(() => root.unmount());
  roots = [];
});

/** Render a component whose body may use every hook; `hold` is what it returned last. */
function render(useBody, from = client) {
  const hold = { latest: undefined, renders: [], error: undefined };
  class Boundary extends React.Component {
    state = { failed: false };
    static getDerivedStateFromError() {
      return { failed: true };
    }
    componentDidCatch(error) {
      hold.error = error;
    }
    render() {
      return this.state.failed ? null : this.props.children;
    }
  }
  function Body() {
    hold.latest = useBody();
    hold.renders.push(hold.latest);
    return null;
  }
  const place = window.document.createElement("div");
  const root = createRoot(place, { onCaughtError: () => {} });
  roots.push(root);
  root.render(h(convex.ConvexProvider, { client: from }, h(Boundary, null, h(Body))));
  return hold;
}

test("useQuery is undefined first, then follows the data", async () => {
  const channel = unique("react");
  const hold = render(() => convex.useQuery(api.messages.bodies, { channel }));
  await until(() => hold.latest !== undefined);
  assert.equal(hold.renders[0], undefined);
  assert.deepEqual(hold.latest, []);
  await other.mutation(api.messages.send, { channel, author: "b", body: "hi" });
  await until(() => hold.latest.length === 1);
});

test("useQuery follows its arguments and can be skipped", async () => {
  const [first, second] = [unique("react"), unique("react")];
  await other.mutation(api.messages.send, { channel: second, author: "b", body: "there" });
  let choose;
  const hold = render(() => {
    const [channel, setChannel] = useState(null);
    choose = setChannel;
    return convex.useQuery(api.messages.bodies, channel === null ? "skip" : { channel });
  });
  await until(() => choose);
  assert.equal(hold.latest, undefined);
  choose(first);
  await until(() => Array.isArray(hold.latest));
  choose(second);
  await until(() => hold.latest?.[0] === "there");
});

test("useQuery throws what the function raised", async () => {
  const hold = render(() => convex.useQuery(api.failures.onPurpose, { data: { code: 404 } }));
  await until(() => hold.error);
  assert.ok(hold.error instanceof ConvexError);
  assert.deepEqual(hold.error.data, { code: 404 });
});

test("an optimistic update shows at once and gives way to the truth", async () => {
  const channel = unique("react");
  const hold = render(() => ({
    bodies: convex.useQuery(api.messages.bodies, { channel }),
    send: convex.useMutation(api.messages.send).withOptimisticUpdate((store, args) => {
      const before = store.getQuery(api.messages.bodies, { channel: args.channel });
      store.setQuery(api.messages.bodies, { channel: args.channel }, [
        ...(before ?? []),
        `${args.body} (sending)`,
      ]);
    }),
  }));
  await until(() => hold.latest?.bodies);
  hold.renders.length = 0;
  const watch = client.watchQuery(api.messages.bodies, { channel });
  const sent = hold.latest.send({ channel, author: "a", body: "fast" });
  assert.deepEqual(watch.localQueryResult(), ["fast (sending)"], "before any answer can come");
  await sent;
  assert.deepEqual(watch.localQueryResult(), ["fast"], "the truth is there with the promise");
  await until(() => hold.latest.bodies[0] === "fast");
  // What was on the page in between: the guess (unless the truth overtook it), never a gap.
  const states = hold.renders.map(({ bodies }) => bodies.join());
  const changes = states.filter((state, i) => state !== states[i - 1]);
  assert.match(changes.join(" | "), /^( \| )?(fast \(sending\) \| )?fast$/);
});

test("an optimistic update of a failed mutation is taken back", async () => {
  const channel = unique("react");
  const hold = render(() => ({
    bodies: convex.useQuery(api.messages.bodies, { channel }),
    send: convex.useMutation(api.messages.send).withOptimisticUpdate((store) => {
      store.setQuery(api.messages.bodies, { channel }, ["hope"]);
    }),
  }));
  await until(() => hold.latest?.bodies);
  await assert.rejects(hold.latest.send({ channel, author: "a", body: "" }), (error) => {
    assert.equal(error.data.code, "empty");
    return true;
  });
  await until(() => hold.latest.bodies.length === 0);
});

test("useMutation without an update resolves with the result", async () => {
  const name = unique("react");
  const hold = render(() => convex.useMutation(api.counters.increment));
  await until(() => hold.latest);
  assert.equal(await hold.latest({ name, by: 3 }), 3);
});

test("useAction resolves with the result and rejects with the error", async () => {
  const channel = unique("react");
  const hold = render(() => ({
    relay: convex.useAction(api.messages.relay),
    fail: convex.useAction(api.failures.inAction),
  }));
  await until(() => hold.latest);
  assert.equal(await hold.latest.relay({ channel, body: "round" }), "round");
  await assert.rejects(hold.latest.fail({}), (error) => error.data === "action refused");
});

test("usePaginatedQuery loads more and keeps its pages whole", async () => {
  const channel = unique("react");
  await other.mutation(api.messages.sendMany, { channel, count: 12 });
  const hold = render(() =>
    convex.usePaginatedQuery(api.messages.pageOfChannel, { channel }, { initialNumItems: 5 }),
  );
  await until(() => hold.latest?.status === "CanLoadMore");
  assert.equal(hold.latest.results.length, 5);
  hold.latest.loadMore(5);
  await until(() => hold.latest.results.length === 10);

  // A row that belongs into the first page, and one deleted from the middle of the second.
  await other.mutation(api.messages.send, { channel, author: "b", body: "new" });
  await until(() => hold.latest.results.length === 11);
  assert.equal(hold.latest.results[0].body, "new");
  await other.mutation(api.messages.remove, { messageId: hold.latest.results[8]._id });
  await until(() => hold.latest.results.length === 10);

  hold.latest.loadMore(10);
  await until(() => hold.latest.status === "Exhausted");
  const bodies = hold.latest.results.map((message) => message.body);
  assert.equal(bodies.length, 12);
  assert.equal(new Set(bodies).size, 12, "nothing twice, nothing lost");
  assert.equal(bodies[0], "new");
  assert.equal(bodies.at(-1), "message 0");
});

test("a page that grows far beyond its size is split and loses nothing", async () => {
  const channel = unique("react");
  await other.mutation(api.messages.sendMany, { channel, count: 4 });
  const hold = render(() =>
    convex.usePaginatedQuery(api.messages.pageOfChannel, { channel }, { initialNumItems: 3 }),
  );
  await until(() => hold.latest?.results.length === 3);
  await other.mutation(api.messages.sendMany, { channel, count: 20 });
  await until(() => hold.latest.results.length === 23);
  await until(() => hold.latest.status === "CanLoadMore");
  hold.latest.loadMore(10);
  await until(() => hold.latest.status === "Exhausted");
  const ids = hold.latest.results.map((message) => message._id);
  assert.equal(ids.length, 24);
  assert.equal(new Set(ids).size, 24);
});

test("a cursor of another query starts the pages anew", async () => { // C83
  const channel = unique("react");
  await other.mutation(api.messages.sendMany, { channel, count: 6 });
  const page = await client.query(api.messages.pageOfChannel, {
    channel,
    paginationOpts: { numItems: 2, cursor: null },
  });
  await assert.rejects(
    client.query(api.messages.pageOfChannel, {
      channel: unique("react"),
      paginationOpts: { numItems: 2, cursor: page.continueCursor },
    }),
    /InvalidCursor/,
  );
});

test("the connection's state is told", async () => {
  const hold = render(() => convex.useConvexConnectionState());
  await until(() => hold.latest?.isWebSocketConnected);
  assert.equal(hold.latest.hasEverConnected, true);
});
