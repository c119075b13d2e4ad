// The Unheard page in a real browser: start an experiment, watch it, watch it from a second tab.
// Arguments: CHROMIUM PAGE-URL FOLDER-FOR-SCREENSHOTS.
import { launchChromium } from "./chromium.mjs";
import { report } from "./support.mjs";

const [executablePath, page, folder] = process.argv.slice(2);
const browser = await launchChromium(executablePath);

async function open(url, options) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const tab = await context.newPage();
  tab.on("console", (line) => {
    if (line.type() === "error") report("console-error", { text: line.text() });
  });
  tab.on("pageerror", (error) => report("page-error", { text: error.message }));
  await tab.goto(url);
  return tab;
}

const results = (tab) => tab.getByTestId("result").count();

try {
  const first = await open(page);
  const start = first.getByTestId("start");
  await start.waitFor();
  await first.waitForFunction(
    () => !document.querySelector('[data-testid="start"]').disabled,
    undefined,
    { timeout: 20_000 },
  ).catch(() => report("start-disabled"));
  await first.screenshot({ path: `${folder}/unheard-before.png`, fullPage: true });
  await start.click();

  await first.getByTestId("result").first().waitFor({ timeout: 30_000 });
  const link = first.url();
  const second = await open(link, { colorScheme: "dark", viewport: { width: 420, height: 900 } });
  await second.getByTestId("result").first().waitFor({ timeout: 30_000 });

  // Results must arrive one after another, not all at once at the end.
  const counts = new Set();
  let shot = false;
  const giveUp = Date.now() + 60_000;
  while (!(await first.getByTestId("insights").isVisible()) && Date.now() < giveUp) {
    counts.add(await results(first));
    if (!shot && counts.size > 3) {
      shot = true;
      await first.screenshot({ path: `${folder}/unheard-streaming.png`, fullPage: true });
    }
    await first.waitForTimeout(20);
  }
  await first.getByTestId("insights").waitFor({ timeout: 30_000 });
  await second.getByTestId("insights").waitFor({ timeout: 30_000 });

  const read = async (tab) => ({
    results: await results(tab),
    texts: (await tab.getByTestId("result").allTextContents()).sort(),
    status: (await tab.getByTestId("status").first().innerText()).trim(),
    progress: await tab.getByTestId("progress").first().evaluate((node) => ({
      value: Number(node.value ?? node.getAttribute("aria-valuenow")),
      max: Number(node.max ?? node.getAttribute("aria-valuemax")),
    })),
    sentiments: await Promise.all(
      ["positive", "neutral", "negative"].map((kind) =>
        tab.getByTestId(`sentiment-${kind}`).first().textContent(),
      ),
    ),
  });
  await first.screenshot({ path: `${folder}/unheard-done.png`, fullPage: true });
  await second.screenshot({ path: `${folder}/unheard-second-tab.png`, fullPage: true });
  report("done", {
    link,
    steps: counts.size,
    first: await read(first),
    second: await read(second),
  });
} catch (error) {
  report("failed", { message: error.message });
  const tabs = browser.contexts().flatMap((context) => context.pages());
  for (const [i, tab] of tabs.entries()) {
    await tab.screenshot({ path: `${folder}/unheard-failed-${i}.png`, fullPage: true });
  }
  process.exitCode = 1;
} finally {
  await browser.close();
}
