// pg-boss: jobs that are made in transactions, worked, retried, repeated, and published.

import { once } from "node:events";
import pg from "pg";
import { PgBoss } from "pg-boss";
import { begin, crowd, eventually, fails, schema, show, step, url } from "./transcript.js";

begin("pg-boss", "pg-boss");
const options = { connectionString: url, schema: `${schema}_boss`, max: 3, supervise: false, schedule: false };
const [boss, other] = [new PgBoss(options), new PgBoss(options)];
const polled = { pollingIntervalSeconds: 0.5 };
for (const each of [boss, other]) each.on("error", (error) => show("error", error.code ?? error.message));

await step("the schema is made, and found by a second instance", async () => {
  // One after the other: CREATE SCHEMA IF NOT EXISTS of two sessions at once may fail in any Postgres.
  for (const each of [boss, other]) await each.start();
  await boss.createQueue("mail");
  await boss.createQueue("flaky");
  await boss.createQueue("batch");
  await boss.createQueue("failed");
});

await step("a job is worked once, whoever takes it", async () => {
  const worked = [];
  const work = (jobs) => void worked.push(...jobs.map(({ data }) => data.n));
  await boss.work("mail", polled, async (jobs) => work(jobs));
  await other.work("mail", polled, async (jobs) => work(jobs));
  await crowd(12, (n) => (n % 2 ? boss : other).send("mail", { n }));
  await eventually(12, () => worked.length);
  show(worked.sort((a, b) => a - b));
});

await step("a job of a transaction that is rolled back is none", async () => {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const db = { executeSql: (text, values) => client.query(text, values) };
  for (const [n, end] of [[1, "COMMIT"], [2, "ROLLBACK"], [3, "COMMIT"]]) {
    await client.query("BEGIN");
    await boss.send("batch", { n }, { db });
    await client.query(end);
  }
  await client.end();
  const jobs = await boss.fetch("batch", { batchSize: 10 });
  show(jobs.map(({ data }) => data.n).sort());
  await boss.complete("batch", jobs.map(({ id }) => id));
});

await step("a job that fails is tried again, and put aside", async () => {
  let tries = 0;
  await boss.updateQueue("flaky", { retryLimit: 2, retryDelay: 0, deadLetter: "failed" });
  await boss.send("flaky", { n: 7 }, { retryLimit: 2, retryDelay: 0, deadLetter: "failed" });
  await boss.work("flaky", polled, async () => {
    tries++;
    throw new Error("on purpose");
  });
  const aside = [];
  await boss.work("failed", polled, async (jobs) => void aside.push(...jobs.map(({ data }) => data.n)));
  await eventually([7], () => aside);
  show(tries, aside);
});

await step("published to subscribers, and only once a key", async () => {
  await boss.createQueue("one");
  await boss.createQueue("two");
  await boss.subscribe("event", "one");
  await boss.subscribe("event", "two");
  await boss.publish("event", { n: 1 });
  show((await boss.fetch("one")).map(({ data }) => data), (await boss.fetch("two")).map(({ data }) => data));
  const ids = await crowd(8, () => boss.send("batch", {}, { singletonKey: "k", singletonSeconds: 3600 }));
  show(ids.filter(Boolean).length);
});

await step("many jobs at a time, and maintenance", async () => {
  await boss.insert("batch", Array.from({ length: 500 }, (_, n) => ({ data: { n } })));
  const taken = await crowd(10, (n) => (n % 2 ? boss : other).fetch("batch", { batchSize: 100 }));
  const jobs = taken.flat();
  show(jobs.length, new Set(jobs.map(({ id }) => id)).size);
  await boss.complete("batch", jobs.map(({ id }) => id));
  await boss.supervise("batch");
});

await step("both stop", async () => {
  await Promise.all([boss, other].map((each) => Promise.all([once(each, "stopped"), each.stop({ graceful: true })])));
  await fails(boss.send("mail", {}).catch((error) => Promise.reject(Object.assign(error, { code: "closed", severity: "" }))));
});
