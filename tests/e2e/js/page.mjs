// A page of this folder in a real browser: bundled, served from an origin of its own, opened.
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";
import { launchChromium } from "./chromium.mjs";
import { report } from "./support.mjs";

/** Serve a bundle of `file` on a free port; gives the page's address and a way to stop. */
export async function servePage(file) {
  const bundle = await build({
    entryPoints: [fileURLToPath(new URL(file, import.meta.url))],
    bundle: true,
    write: false,
    format: "esm",
    jsx: "automatic",
    define: { "process.env.NODE_ENV": '"production"' },
  });
  const script = bundle.outputFiles[0].contents;
  const server = createServer((request, response) => {
    const isScript = request.url === "/page.js";
    response.setHeader("Content-Type", isScript ? "text/javascript" : "text/html; charset=utf-8");
    response.end(
      isScript
        ? script
        : '<!doctype html><title>test</title><link rel="icon" href="data:,">' +
            '<div id="root"></div><script type="module" src="/page.js"></script>',
    );
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** Chromium, and a way to open tabs that report what goes wrong in them. */
export async function openBrowser(executablePath) {
  const browser = await launchChromium(executablePath);
  const context = await browser.newContext();
  return {
    close: () => browser.close(),
    tab: async (url) => {
      const tab = await context.newPage();
      tab.on("pageerror", (error) => report("page-error", { text: error.message }));
      tab.on("console", (line) => {
        if (line.type() === "error") report("console-error", { text: line.text() });
      });
      if (url) await tab.goto(url);
      return tab;
    },
  };
}
