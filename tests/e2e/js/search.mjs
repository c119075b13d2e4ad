// A search box in a real browser while others write. Arguments: CHROMIUM DEPLOYMENT-URL.
import assert from "node:assert/strict";

import { ConvexHttpClient } from "convex/browser";
import { anyApi as api } from "convex/server";

import { openBrowser, servePage } from "./page.mjs";
import { report, until } from "./support.mjs";

const [executablePath, deployment] = process.argv.slice(2);
const other = new ConvexHttpClient(deployment, { logger: false });
const page = await servePage("./search_page.jsx");
const browser = await openBrowser(executablePath);

try {
  const texts = ["Green tea", "Black tea, strong", "Coffee", "The teacher's apple"];
  const [green] = await other.mutation(api.notes.add, { folder: "a", texts });
  const tab = await browser.tab(`${page.url}?deployment=${encodeURIComponent(deployment)}`);
  const shows = async (expected) => {
    let last;
    await until(async () => {
      last = await tab.locator("#found").getAttribute("data-texts");
      return last === JSON.stringify(expected);
    }, `the list to show ${JSON.stringify(expected)}`).catch((error) => {
      throw new Error(`${error.message}; it shows ${last}`);
    });
  };

  await shows([]);
  await tab.locator("input").pressSequentially("te");
  await shows(["The teacher's apple", "Green tea", "Black tea, strong"]); // the rarer word first
  await tab.locator("input").pressSequentially("a");
  await shows(["Green tea", "Black tea, strong", "The teacher's apple"]);
  await tab.locator("input").pressSequentially("ch");
  await shows(["The teacher's apple"]);
  await other.mutation(api.notes.add, { folder: "b", texts: ["Teaching"] });
  await shows(["Teaching", "The teacher's apple"]);
  await tab.locator("input").fill("TEA black");
  await shows(["Black tea, strong", "Green tea"]);
  await other.mutation(api.notes.edit, { id: green, text: "water" });
  await shows(["Black tea, strong"]);
  await other.mutation(api.notes.remove, { id: green });

  // The same by pages; what is added comes where its rank says.
  await tab.locator("input").fill("cup");
  await other.mutation(api.notes.add, { folder: "c", texts: Array(8).fill("cup") });
  const pages = async (status, count) =>
    until(async () => {
      const list = tab.locator("#pages");
      const now = [await list.getAttribute("data-status"), await list.getAttribute("data-count")];
      return now[0] === status && now[1] === String(count);
    }, `the pages to be ${status} with ${count}`);
  await pages("Exhausted", 8); // the first page was open at its end when they came
  await tab.locator("input").fill("cups, cup");
  await pages("CanLoadMore", 3);
  await tab.locator("#pages button").click();
  await pages("CanLoadMore", 6);
  await tab.locator("#pages button").click();
  await pages("Exhausted", 8);

  assert.deepEqual(await other.query(api.notes.find, { text: "tea", folder: "b" }), ["Teaching"]);
  report("done");
} finally {
  await browser.close();
  page.stop();
}
