// The status page in a browser: see_status_page.js URL TOKEN PID
import assert from "node:assert/strict";
import pg from "pg";
import { open } from "./chromium.js";

const [url, token, pid] = process.argv.slice(2);
const browser = await open({ width: 1280, height: 900 });
const complaints = [];
const page = await browser.newPage();
page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
page.on("pageerror", (error) => complaints.push(String(error)));
page.setDefaultTimeout(20_000);

const check = (what) => console.log(`ok ${what}`);
const shows = (selector, text) => page.locator(selector).filter({ hasText: text }).first().waitFor();
const role = (name) => page.locator(`.role[aria-label="role ${name}"]`);

try {
  await page.goto(url);
  await page.locator('body[data-link="live"]').waitFor();
  await shows("#tiles", "Clients");
  check("is live");

  const client = new pg.Client({ user: "app", password: process.env.PGPASSWORD });
  await client.connect();
  await client.query("BEGIN");
  await shows(".role .numbers", "1 active");
  await shows("#pools tr", /app\s*app\s*1/);
  await client.query("COMMIT");
  await shows(".role .numbers", "0 active");
  await assert.rejects(client.query("SELECT 1/0"));
  await shows("#errors tr", "22012");
  check("follows what clients do");

  const chart = role("app").locator(".plot .chart");
  const { width } = await chart.boundingBox();
  await chart.hover({ position: { x: width - 2, y: 40 } });
  await shows(".readout", /active.* waiting/);
  assert.match(await role("app").locator(".plot .active").first().getAttribute("d"), /^M\d+ /);
  check("draws what was");

  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  const wide = await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
  assert.ok(wide, "a wide screen does not scroll sideways");
  await page.emulateMedia({ colorScheme: "dark" });
  assert.notEqual(await ground(), light);
  for (const width of [375, 320]) {
    await page.setViewportSize({ width, height: 812 });
    const scrolls = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(scrolls <= 0, `${width} pixels are ${scrolls} too few`);
  }
  await page.setViewportSize({ width: 375, height: 812 });
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1280, height: 900 });
  check("is readable in dark and light, on a phone and on a wide screen");

  const limit = role("app").getByRole("button", { name: "Limit" });
  assert.equal(await limit.isVisible(), false, "nobody acts without the token");
  const unlock = async (text) => {
    await page.locator("#token").fill(text);
    await page.getByRole("button", { name: "Unlock" }).click();
  };
  await unlock("this is not the token");
  await shows("#done", "the token is wrong");
  assert.equal(await limit.isVisible(), false);
  // The browser says of its own that it was refused.
  assert.deepEqual(complaints.splice(0).filter((text) => !text.includes("401")), []);
  await unlock(token);
  await limit.click();
  await shows("#confirm", "the limit of the transactions of this role");
  await page.locator("#limit").fill("3");
  await page.locator("#over").selectOption("");
  await shows("#confirm-command", 'LIMIT "app" 3');
  await page.getByRole("button", { name: "Do it" }).click();
  await shows("#done", "done");
  await shows(".role .numbers", "of 3");
  const statement = page.locator("#statements tr").filter({ hasText: "SELECT ?/?" });
  await statement.getByRole("button", { name: "Block" }).click();
  await shows("#confirm-command", /BLOCK STATEMENT [0-9a-f]{16} FOR '10m'/);
  await page.getByRole("button", { name: "Do it" }).click();
  await shows("#orders tr", "block");
  await assert.rejects(client.query("SELECT 2/0"), { code: "53400" });
  await statement.filter({ hasText: "block" }).waitFor();
  await page.getByRole("button", { name: "Take back" }).click();
  await page.getByRole("button", { name: "Do it" }).click();
  await page.locator("#orders tr").filter({ hasText: "block" }).waitFor({ state: "detached" });
  await assert.rejects(client.query("SELECT 2/0"), { code: "22012" });
  await page.getByRole("button", { name: "Pause" }).first().click();
  await page.locator("#confirm").getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("button", { name: "Pause" }).first().click();
  await page.getByRole("button", { name: "Do it" }).click();
  await shows("#headline.warning", "paused");
  await page.getByRole("button", { name: "Resume" }).first().click();
  await page.getByRole("button", { name: "Do it" }).click();
  await shows("#lately", "paused");
  await page.locator("#headline.ok").waitFor();
  await page.getByRole("button", { name: "Lock", exact: true }).click();
  assert.equal(await limit.isVisible(), false);
  check("acts with the token, and not without");

  process.kill(pid, "SIGSTOP");
  try {
    await page.locator('body[data-link="lost"]').waitFor();
    await shows("#link", "connection lost: this is how it was at");
  } finally {
    process.kill(pid, "SIGCONT");
  }
  await page.locator('body[data-link="live"]').waitFor();
  check("says when the connection is lost, and comes back");

  await client.end();
  assert.deepEqual(complaints, []);
} finally {
  await browser.end();
}
