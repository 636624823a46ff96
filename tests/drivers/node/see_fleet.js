// The fleet's table of the status page, where of two instances each has a client and one a transaction: see_fleet.js URL
import assert from "node:assert/strict";
import { open } from "./chromium.js";

const [url] = process.argv.slice(2);
const browser = await open({ width: 1280, height: 900 });
const page = await browser.newPage();
page.setDefaultTimeout(20_000);
try {
  await page.goto(url);
  const rows = page.locator("#fleet tr");
  const sums = rows.filter({ hasText: "2 together" }).locator("td.number");
  await sums.nth(0).filter({ hasText: /^2$/ }).waitFor();
  await sums.nth(1).filter({ hasText: /^1$/ }).waitFor();
  assert.equal(await rows.count(), 3);
  assert.equal(await rows.filter({ hasText: ", this one" }).count(), 1);
  assert.equal(await rows.filter({ hasText: /granted.*role app \d+\/12/ }).count(), 2);
} finally {
  await browser.end();
}
