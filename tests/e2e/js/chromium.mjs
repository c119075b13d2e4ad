// The browser as all pages here are opened: headless, and asking no host of the world for anything.
import { chromium } from "playwright-core";

/** Start the Chromium at `executablePath`; the caller closes it. */
export function launchChromium(executablePath) {
  return chromium.launch({
    executablePath,
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}
