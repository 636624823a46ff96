// Debian's Chromium without a window, for programs that look at the status page.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const args = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];

/** A browser with a profile of its own; `end` closes it. */
export async function open(viewport) {
  const profile = mkdtempSync(join(tmpdir(), "pgweir-chromium-"));
  const options = { executablePath: "/usr/bin/chromium", args, viewport, colorScheme: "light" };
  const browser = await chromium.launchPersistentContext(profile, options);
  browser.end = async () => {
    await browser.close();
    rmSync(profile, { recursive: true, force: true });
  };
  return browser;
}

/** The first screens of a page. */
export async function picture(page, directory, name) {
  await page.mouse.move(0, 0);
  await page.screenshot({ path: join(directory, `status-${name}.png`) });
}
