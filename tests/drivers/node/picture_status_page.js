// Pictures of the status page, for the docs: picture_status_page.js URL DIRECTORY. There are the roles web, jobs and reports.
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { open, picture } from "./chromium.js";

const [url, directory] = process.argv.slice(2);
const steady = 75, burst = 9;
const wanted = { web: 5, jobs: 3, reports: 1 };

async function connect(user) {
  const client = new pg.Client({ user, password: process.env[`${user.toUpperCase()}_PASSWORD`] });
  client.on("error", () => {});
  await client.connect();
  return client;
}

/** A client that works while so many of its role are wanted. */
async function work(user, place, statement) {
  const client = await connect(user);
  for (;;) {
    if (place < wanted[user]) await client.query(statement()).catch(() => {});
    await sleep(place < wanted[user] ? Math.random() * 60 : 300);
  }
}

const busy = (seconds) => `SELECT pg_sleep(${(Math.random() * seconds).toFixed(3)})`;
for (let n = 0; n < 150; n++) work("web", n, () => busy(0.1)).catch(() => {});
for (let n = 0; n < 8; n++) work("jobs", n, () => busy(0.4)).catch(() => {});
for (let n = 0; n < 2; n++) work("reports", n, () => Math.random() < 0.05 ? "SELECT 1/0" : busy(1)).catch(() => {});
const listener = await connect("jobs");
await listener.query("LISTEN jobs");
await listener.query("LISTEN done");
const pinned = await connect("reports");
await pinned.query("CREATE TEMP TABLE t (x int)");
const holder = await connect("jobs");

const browser = await open({ width: 1280, height: 900 });
try {
  const page = await browser.newPage();
  await page.goto(url);
  for (let second = 0; second < steady; second++) {
    wanted.web = second > 24 && second < 31 ? 130 : 4 + Math.floor(Math.random() * 5);
    wanted.jobs = 2 + Math.floor(Math.random() * 4);
    await sleep(1000);
  }
  // Somebody holds a row and does nothing; everybody comes at once.
  await holder.query("BEGIN");
  await holder.query("UPDATE stock SET n = n + 1");
  for (let n = 0; n < 5; n++) connect("web").then((client) => client.query("UPDATE stock SET n = n + 1")).catch(() => {});
  wanted.web = 140;
  await sleep(burst * 1000);
  await page.locator("#found li").first().waitFor();
  await picture(page, directory, "light");
  await page.emulateMedia({ colorScheme: "dark" });
  await picture(page, directory, "dark");
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 375, height: 812 });
  await sleep(1200);
  await picture(page, directory, "phone");
} finally {
  await browser.end();
}
process.exit();
