// Upload, show and delete files from a React page. Arguments: CHROMIUM DEPLOYMENT-URL.
import { openBrowser, servePage } from "./page.mjs";
import { report, until } from "./support.mjs";

const [executablePath, deployment] = process.argv.slice(2);
const page = await servePage("./files_page.jsx");
const browser = await openBrowser(executablePath);

const PIXEL = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==",
  "base64",
);
const DRAWING =
  '<svg xmlns="http://www.w3.org/2000/svg" width="7" height="5"><script>document.title="ran"</script></svg>';
const EVIL =
  '<!doctype html><title>quiet</title><p id="text">read me</p><script>document.title = "ran"</script>';

try {
  const tab = await browser.tab(`${page.url}?deployment=${encodeURIComponent(deployment)}`);
  const second = await browser.tab(`${page.url}?deployment=${encodeURIComponent(deployment)}`);
  await tab.locator("input").waitFor();
  await tab.locator("input").setInputFiles([
    { name: "pixel", mimeType: "image/png", buffer: PIXEL },
    { name: "drawing", mimeType: "image/svg+xml", buffer: Buffer.from(DRAWING) },
    { name: "evil", mimeType: "text/html", buffer: Buffer.from(EVIL) },
  ]);
  const figure = (where, name) => where.locator(`[data-name=${name}]`);
  await figure(second, "evil").waitFor(); // the other tab hears of all three
  const widths = await until(async () => {
    const found = await tab.evaluate(() => [...document.images].map((each) => each.naturalWidth));
    return found.length === 2 && found.every(Boolean) && found;
  }, "both pictures to be drawn");
  const url = (name) => figure(tab, name).locator("a").getAttribute("href");
  const [pixel, drawing, evil] = [await url("pixel"), await url("drawing"), await url("evil")];

  // Opened as documents of their own, the files are shown and their scripts do not run.
  const opened = await browser.tab();
  const blocked = [];
  opened.removeAllListeners("console");
  opened.on("console", (line) => blocked.push(line.text()));
  await opened.goto(evil);
  const text = await opened.locator("#text").textContent();
  const titles = [await opened.title()];
  const origin = await opened.evaluate(() => self.origin);
  await opened.goto(drawing);
  titles.push(await opened.title());
  await opened.goto(pixel);
  const shown = await opened.evaluate(() => document.images[0]?.naturalWidth ?? 0);
  await opened.close();

  const part = await tab.evaluate(async (address) => {
    const answer = await fetch(address, { headers: { Range: "bytes=1-3" } });
    return [answer.status, await answer.text()];
  }, pixel);

  await figure(tab, "pixel").locator("button").click();
  await figure(second, "pixel").waitFor({ state: "detached" });
  const after = await second.evaluate(
    async (address) => (await fetch(address, { cache: "no-store" }).catch(() => ({}))).status,
    pixel,
  );
  report("done", { widths, text, titles, origin, blocked, shown, part, after });
} finally {
  await browser.close();
  page.stop();
}
