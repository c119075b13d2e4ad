// Paginated lists in a real browser while others write. Arguments: CHROMIUM DEPLOYMENT-URL PROXY-URL.
// The page talks through the proxy, which the Python test cuts; writes go past it.
import assert from "node:assert/strict";

import { ConvexHttpClient } from "convex/browser";
import { anyApi as api } from "convex/server";

import { openBrowser, servePage } from "./page.mjs";
import { orders, report, until } from "./support.mjs";

const [executablePath, deployment, proxy] = process.argv.slice(2);
const other = new ConvexHttpClient(deployment, { logger: false });
const order = orders();
const page = await servePage("./pages_page.jsx");
const browser = await openBrowser(executablePath);

const sent = []; // what the page adds to its query set
function listen(tab) {
  tab.on("websocket", (socket) =>
    socket.on("framesent", ({ payload }) => {
      const message = JSON.parse(payload);
      if (message.type !== "ModifyQuerySet") return;
      sent.push(...message.modifications.filter((change) => change.type === "Add"));
    }),
  );
}
const splits = (path) =>
  sent.filter((add) => add.udfPath === path && add.args[0].paginationOpts.endCursor).length;

try {
  await other.mutation(api.items.put, { ranks: [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110] });
  const tab = await browser.tab();
  listen(tab);
  await tab.goto(`${page.url}?deployment=${encodeURIComponent(proxy)}`);

  const list = (name) =>
    tab.evaluate((id) => {
      const { status, ranks } = document.getElementById(id)?.dataset ?? {};
      return ranks && { status, ranks: JSON.parse(ranks) };
    }, name);
  const shows = async (name, ranks, status) => {
    let last;
    await until(async () => {
      last = await list(name);
      return last?.status === status && JSON.stringify(last.ranks) === JSON.stringify(ranks);
    }, `${name} to show ${ranks} and ${status}`).catch((error) => {
      throw new Error(`${error.message}; it shows ${JSON.stringify(last)}`);
    });
  };
  const more = (name) => tab.locator(`#${name} button`).click();
  const all = () => other.query(api.items.ranks, {});

  // Two pages are loaded; rows come and go in the middle of both.
  await shows("page", [10, 20, 30, 40], "CanLoadMore");
  await more("page");
  await shows("page", [10, 20, 30, 40, 50, 60, 70, 80], "CanLoadMore");
  await other.mutation(api.items.put, { ranks: [24] });
  await shows("page", [10, 20, 24, 30, 40, 50, 60, 70, 80], "CanLoadMore");
  await other.mutation(api.items.put, { ranks: [42, 66] });
  await shows("page", [10, 20, 24, 30, 40, 42, 50, 60, 66, 70, 80], "CanLoadMore");
  await other.mutation(api.items.remove, { rank: 40 }); // the row at which the first page ends
  await shows("page", [10, 20, 24, 30, 42, 50, 60, 66, 70, 80], "CanLoadMore");
  await other.mutation(api.items.put, { ranks: [40, 5, 200] });
  await shows("page", [5, 10, 20, 24, 30, 40, 42, 50, 60, 66, 70, 80], "CanLoadMore");
  await more("page");
  await shows("page", await all(), "CanLoadMore"); // four more, and no look behind them
  await more("page");
  await shows("page", await all(), "Exhausted");
  await other.mutation(api.items.put, { ranks: [210] }); // the last page is open at its end
  await shows("page", await all(), "Exhausted");

  // The first page grows beyond twice its size, and is split.
  assert.equal(splits("items:page"), 0);
  await other.mutation(api.items.put, { ranks: [...Array(20).keys()].map((n) => 10.5 + n / 4) });
  await shows("page", await all(), "Exhausted");
  await until(() => splits("items:page") >= 2, "a page to be split");
  await other.mutation(api.items.remove, { rank: 12 });
  await shows("page", await all(), "Exhausted");

  // The line is cut; what changed meanwhile is there afterwards, the pages are where they were.
  const before = sent.length;
  report("cut");
  await order();
  await other.mutation(api.items.put, { ranks: [13.1, 41, 67] });
  await other.mutation(api.items.remove, { rank: 50 });
  report("flow");
  await order();
  await shows("page", await all(), "Exhausted");
  const again = sent.slice(before).filter((add) => add.udfPath === "items:page");
  assert.ok(again.length >= 3, "the pages were asked for again");
  assert.ok(again.every((add) => typeof add.journal === "string"), "with their journals");

  // Pages that must be split, since few rows may be read at a time.
  await until(async () => (await list("oddOnes"))?.status === "CanLoadMore");
  for (;;) {
    const { status } = await until(async () => {
      const now = await list("oddOnes");
      return now.status.startsWith("Loading") ? null : now;
    });
    if (status === "Exhausted") break;
    await more("oddOnes");
  }
  const odd = (await all()).filter((rank) => rank % 2 === 1);
  await shows("oddOnes", odd, "Exhausted");
  assert.ok(splits("items:oddOnes") >= 2);

  // A cursor that no longer fits its query: the list begins anew, by itself.
  await more("eitherWay");
  await until(async () => (await list("eitherWay")).ranks.length >= 8);
  await other.mutation(api.items.turnAround, {});
  await shows("eitherWay", (await all()).reverse().slice(0, 4), "CanLoadMore");

  // No moment showed a row twice or out of order.
  const shown = await tab.evaluate(() => window.shown);
  for (const name of ["page", "oddOnes"]) {
    for (const ranks of shown[name]) {
      assert.deepEqual(ranks, [...new Set(ranks)].sort((a, b) => a - b));
    }
  }
  report("done", { renders: shown.page.length, splits: splits("items:page") });
} finally {
  await browser.close();
  page.stop();
}
