// graphile-worker against DATABASE_URL: two workers that poll every ten minutes, so that only notifications wake them in time.
// Prints `ok name` per check, fails on the first that does not hold.

import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import pg from "pg";

const connectionString = process.env.DATABASE_URL;
const pollInterval = 600_000;

// No job waits that long for its notification.
const patience = 60_000;

const clients = 20;
const jobsEach = 25;

const quiet = new Logger(() => (level, message) => level === "error" && console.error(message));

// How often each job ran, and who tells of it.
const ran = new Map();
const jobs = new EventEmitter();

const taskList = {
  count({ id }) {
    ran.set(id, (ran.get(id) ?? 0) + 1);
    jobs.emit("ran");
  },
};

async function untilRan(count) {
  const signal = AbortSignal.timeout(patience);
  while (ran.size < count) await once(jobs, "ran", { signal });
}

async function startWorker() {
  const runner = await run({ connectionString, concurrency: 4, pollInterval, noHandleSignals: true, logger: quiet, taskList });
  // It says when it is about to listen, not when it does: so it is sent notifications until it hears one.
  const heard = once(runner.events, "pool:listen:notification").then(() => true);
  const nobody = { next: () => new Promise((resolve) => setTimeout(resolve, 100, false)) };
  const client = new pg.Client({ connectionString });
  await client.connect();
  do await client.query("SELECT pg_notify($1, $2)", ["jobs:insert", '{"count":0}']);
  while (!(await Promise.race([heard, nobody.next()])));
  await client.end();
  return runner;
}

async function enqueue(client, id, end) {
  await client.query("BEGIN");
  await client.query("INSERT INTO orders VALUES ($1)", [id]);
  await client.query("SELECT graphile_worker.add_job('count', $1::json)", [{ id }]);
  await client.query(end);
}

const utils = await makeWorkerUtils({ connectionString, logger: quiet });
await utils.migrate();
await utils.release();
const pool = new pg.Pool({ connectionString, max: clients });
await pool.query("DROP TABLE IF EXISTS orders; CREATE TABLE orders (id int)");
const runners = [await startWorker(), await startWorker()];

// Each finds the workers asleep, and only its own notification can wake them.
const alone = await pool.connect();
for (let n = 0; n < 10; n++) {
  await enqueue(alone, n, "COMMIT");
  await untilRan(n + 1);
}
alone.release();
console.log("ok a job that comes alone is run at once");

const client = async (number) => {
  const client = await pool.connect();
  for (let n = 0; n < jobsEach; n++) {
    const id = 1000 + number * jobsEach + n;
    await enqueue(client, id, n % 5 === 0 ? "ROLLBACK" : "COMMIT");
  }
  client.release();
};
await Promise.all(Array.from({ length: clients }, (_, number) => client(number)));
await untilRan(10 + (clients * jobsEach * 4) / 5);
for (const runner of runners) await runner.stop();
const { rows } = await pool.query("SELECT id FROM orders ORDER BY id");
assert.deepEqual([...ran].sort(([a], [b]) => a - b), rows.map(({ id }) => [id, 1]));
// A worker does not wait until a job that ran is deleted.
const left = async () => (await pool.query("SELECT 1 FROM graphile_worker.jobs")).rows.length;
for (const end = Date.now() + patience; (await left()) > 0; ) assert.ok(Date.now() < end, "a job is left");
await pool.end();
console.log("ok each committed job is run once, and no other");
