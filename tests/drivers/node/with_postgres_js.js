// postgres.js: it pipelines, prepares everything, and knows COPY, cursors and notifications.

import { pipeline } from "node:stream/promises";
import { Readable } from "node:stream";
import postgres from "postgres";
import { begin, crowd, fails, schema, show, step, url } from "./transcript.js";

begin("postgres.js", "postgres");
const options = { max: 4, onnotice: () => {} };
let sql = postgres(url, options);

await step("several statements in one text", async () => {
  await sql.unsafe("CREATE TABLE items (id serial PRIMARY KEY, name text UNIQUE, tags text[], extra jsonb, amount bigint); CREATE TABLE log (line text)");
});

await step("INSERT … RETURNING, arrays, json and numbers", async () => {
  const rows = [{ name: "a", tags: ["x", "y,z"], extra: { k: [1] }, amount: 1 }, { name: "b", tags: [], extra: null, amount: 2 }];
  show(await sql`INSERT INTO items ${sql(rows)} RETURNING *`);
  show(await sql`SELECT ${sql.json({ a: 1 })}::jsonb AS json, ${sql.array([1, 2])}::int[] AS numbers, ${new Date(0)}::timestamptz AT TIME ZONE 'UTC' = '1970-01-01' AS epoch`);
});

await step("prepared statements, pipelined", async () => {
  const sums = await crowd(200, async (n) => (await sql`SELECT ${n}::int + ${1}::int AS sum`)[0].sum);
  show(sums.every((sum, n) => sum === n + 1));
  const kinds = await crowd(40, async (n) => Object.keys((await sql.unsafe(`SELECT $1::int AS c${n}`, [n]))[0])[0]);
  show(kinds.join(" "));
});

await step("transactions with savepoints", async () => {
  await sql.begin("isolation level serializable", async (sql) => {
    await sql`INSERT INTO log VALUES ('outer')`;
    await fails(sql.savepoint(async (sql) => {
      await sql`INSERT INTO log VALUES ('inner')`;
      await sql`SELECT 1 / ${0}::int`;
    }));
    await sql.savepoint("named", (sql) => sql`INSERT INTO log VALUES ('named')`);
  });
  await fails(sql.begin((sql) => [sql`INSERT INTO log VALUES ('dropped')`, sql`INSERT INTO items (name) VALUES ('a')`]));
  show(await sql`SELECT line FROM log ORDER BY line`);
});

await step("many transactions at once", async () => {
  await crowd(60, (n) => sql.begin(async (sql) => {
    await sql`UPDATE items SET amount = amount + ${n} WHERE name = ${n % 2 ? "a" : "b"}`;
    if (n % 5 === 0) throw new Error("not this one");
  }).catch((error) => {
    if (error.message !== "not this one") throw error;
  }));
  show(await sql`SELECT name, amount FROM items ORDER BY name`);
});

await step("COPY in and out", async () => {
  await sql`CREATE TABLE copied (a int, b text)`;
  const rows = Array.from({ length: 20000 }, (_, n) => `${n}\trow ${n}\n`);
  await pipeline(Readable.from(rows), await sql`COPY copied FROM STDIN`.writable());
  // A socket stays paused when its COPY is read to the end at once: so this one has a pool of its own.
  const reader = postgres(url, { ...options, max: 1 });
  let bytes = 0;
  for await (const chunk of await reader`COPY copied TO STDOUT`.readable()) bytes += chunk.length;
  await reader.end({ timeout: 0 });
  show(bytes, (await sql`SELECT count(*) FROM copied`)[0].count);
});

await step("a cursor, and rows one by one", async () => {
  let sum = 0;
  await sql`SELECT a FROM copied ORDER BY a`.cursor(1000, (rows) => {
    for (const { a } of rows) sum += a;
  });
  show(sum);
  let many = 0;
  await sql`SELECT * FROM copied`.forEach(() => many++);
  show(many);
});

await step("LISTEN and NOTIFY", async () => {
  const channel = `news of ${schema}`;
  const heard = [];
  const all = new Promise((resolve) => {
    sql.listen(channel, (payload) => heard.push(payload) === 3 && resolve(), async () => {
      await sql.notify(channel, "plain");
      await sql.begin((sql) => sql`SELECT pg_notify(${channel}, 'in a transaction')`);
      await sql.begin(async (sql) => {
        await sql`NOTIFY ${sql(channel)}, 'rolled back'`;
        throw new Error("on purpose");
      }).catch(() => {});
      await sql.notify(channel, "last");
    });
  });
  await all;
  show(heard);
});

await step("cancel, and timeouts of a session", async () => {
  const query = sql`SELECT pg_sleep(60)`;
  setTimeout(() => query.cancel(), 200);
  await fails(query);
  const limited = postgres(url, { ...options, max: 1, connection: { statement_timeout: 3000, application_name: "limited" } });
  await fails(limited`SELECT pg_sleep(60)`);
  await limited.unsafe("SET statement_timeout = 0");
  show(await limited`SELECT current_setting('statement_timeout') AS limit, current_setting('application_name') AS name`);
  await limited.end();
});

await step("a reserved connection with a temporary table", async () => {
  const reserved = await sql.reserve();
  await reserved`CREATE TEMPORARY TABLE mine (a int)`;
  await reserved`INSERT INTO mine SELECT generate_series(1, 10)`;
  show(await reserved`SELECT sum(a) FROM mine`);
  await reserved`DROP TABLE mine`;
  reserved.release();
});

await step("a table changes under a prepared statement", async () => {
  await sql`CREATE TABLE grows (a int)`;
  await sql`INSERT INTO grows VALUES (1)`;
  await crowd(8, () => sql`SELECT * FROM grows`);
  await sql`ALTER TABLE grows ADD b int DEFAULT 2`;
  show(await crowd(8, async () => (await sql`SELECT * FROM grows`)[0]));
});

await step("errors, and the pool goes on", async () => {
  await fails(sql`SELEC`);
  await fails(sql`INSERT INTO items (name) VALUES ('a')`);
  await fails(sql`SELECT ${"no number"}::int`);
  show(await sql`SELECT count(*) FROM items`);
});

await step("disconnect and connect again", async () => {
  await sql.end();
  sql = postgres(url, { ...options, prepare: false });
  show(await sql`SELECT ${1}::int AS one, current_schema() AS schema`);
  await sql.end();
});
