// `auth_page.mjs` in a real browser: log in, write, renew, be somebody else in another tab, log out.
// Arguments: CHROMIUM SERVER ISSUER.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";
import { launchChromium } from "./chromium.mjs";
import { report } from "./support.mjs";

const [executablePath, server, issuer] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));
const bundle = await build({
  entryPoints: [join(here, "auth_page.mjs")],
  bundle: true,
  write: false,
  format: "iife",
  define: { "process.env.NODE_ENV": '"production"' },
  logLevel: "silent",
});
const script = bundle.outputFiles[0].text;
const html = `<!doctype html><link rel="icon" href="data:,"><div id="page"></div>
<script>window.SERVER = ${JSON.stringify(server)}; window.ISSUER = ${JSON.stringify(issuer)};</script>
<script src="/page.js"></script>`;

// A server of its own, not answers of the browser driver: a page from nowhere may not reach this
// machine.
const pages = createServer((request, response) => {
  const isScript = request.url === "/page.js";
  response.setHeader("Content-Type", isScript ? "text/javascript" : "text/html");
  response.end(isScript ? script : html);
});
await new Promise((listening) => pages.listen(0, "127.0.0.1", listening));

const browser = await launchChromium(executablePath);

async function open() {
  const context = await browser.newContext();
  const tab = await context.newPage();
  tab.on("console", (line) => {
    if (line.type() === "error") report("console-error", { text: line.text() });
  });
  tab.on("pageerror", (error) => report("page-error", { text: error.message }));
  await tab.goto(`http://127.0.0.1:${pages.address().port}/`);
  return tab;
}

const shows = (tab, state, me) =>
  tab.waitForFunction(
    ([wantedState, wantedMe]) =>
      document.querySelector("#state")?.textContent === wantedState &&
      document.querySelector("#me")?.textContent === wantedMe,
    [state, me],
  );
const mine = (tab) => tab.locator("#mine").textContent();
const logIn = (tab, user, seconds = 3600) =>
  tab.evaluate(
    ([who, long]) => {
      window.seconds = long;
      window.logIn(who);
    },
    [user, seconds],
  );
const write = (tab, text) => tab.evaluate((note) => window.write({ text: note }), text);

try {
  const [one, two] = [await open(), await open()];
  await shows(one, "outside", "nobody");
  await logIn(one, "browser-ann");
  await shows(one, "inside", "browser-ann");
  assert.equal(await write(one, "note-of-ann"), "browser-ann");
  await one.waitForFunction(() => document.querySelector("#mine").textContent === "note-of-ann");

  await logIn(two, "browser-bob");
  await shows(two, "inside", "browser-bob");
  await write(two, "note-of-bob");
  await two.waitForFunction(() => document.querySelector("#mine").textContent === "note-of-bob");
  assert.equal(await mine(one), "note-of-ann");

  await logIn(one, "browser-cat", 12); // renewed two seconds later
  await shows(one, "inside", "browser-cat");
  const fetches = await one.evaluate(() => window.fetches);
  await one.waitForFunction((before) => window.fetches > before, fetches);
  await shows(one, "inside", "browser-cat");
  assert.equal(await write(one, "note-of-cat"), "browser-cat");

  await logIn(one, null);
  await shows(one, "outside", "nobody");
  assert.equal(await mine(one), "");
  report("done");
} finally {
  await browser.close();
  pages.close();
}
