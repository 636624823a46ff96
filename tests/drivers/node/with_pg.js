// node-postgres against DATABASE_URL: prints `ok name` per check, fails on the first that does not hold.

import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import pg from "pg";
import { from as copyFrom, to as copyTo } from "pg-copy-streams";
import Cursor from "pg-cursor";

const connectionString = process.env.DATABASE_URL;

async function connect() {
  const client = new pg.Client({ connectionString });
  await client.connect();
  return client;
}

async function value(client, text, values) {
  const { rows } = await client.query({ text, values, rowMode: "array" });
  return rows[0][0];
}

const checks = {
  async "named statements survive transactions"(client) {
    const named = (n) => client.query({ name: "add", text: "SELECT $1::int + 1 AS sum", values: [n] });
    for (let n = 0; n < 50; n++) {
      assert.equal((await named(n)).rows[0].sum, n + 1);
      assert.equal(await value(client, "SELECT $1::text", [`${n}`]), `${n}`);
    }
    await client.query("BEGIN");
    assert.equal((await named(41)).rows[0].sum, 42);
    await client.query("COMMIT");
  },

  async "transactions commit and roll back"(client) {
    await client.query("CREATE TABLE kept (a int)");
    await client.query("BEGIN; INSERT INTO kept VALUES (1); SAVEPOINT s");
    await assert.rejects(client.query("SELECT 1/0"), { code: "22012" });
    await assert.rejects(client.query("SELECT 1"), { code: "25P02" });
    await client.query("ROLLBACK TO s");
    await client.query("COMMIT");
    await client.query("BEGIN");
    await client.query("INSERT INTO kept VALUES ($1)", [2]);
    await client.query("ROLLBACK");
    assert.deepEqual(await value(client, "SELECT array_agg(a) FROM kept"), [1]);
  },

  async "COPY streams in and out"(client) {
    await client.query("CREATE TABLE copied (a int, b text)");
    const rows = Array.from({ length: 20000 }, (_, n) => `${n}\trow ${n}\n`);
    await pipeline(Readable.from(rows), client.query(copyFrom("COPY copied FROM STDIN")));
    const chunks = [];
    for await (const chunk of client.query(copyTo("COPY (SELECT * FROM copied ORDER BY a) TO STDOUT"))) chunks.push(chunk);
    assert.equal(Buffer.concat(chunks).toString(), rows.join(""));
    const bad = pipeline(Readable.from(["no number\tx\n"]), client.query(copyFrom("COPY copied FROM STDIN")));
    await assert.rejects(bad, { code: "22P02" });
    assert.equal(await value(client, "SELECT count(*)::int FROM copied"), 20000);
  },

  async "cancel ends a query and the session goes on"(client) {
    const other = await connect();
    const query = new pg.Query("SELECT pg_sleep(62)");
    const ended = new Promise((_, reject) => query.once("error", reject));
    client.query(query);
    const sleeping = "SELECT count(*)::int FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(62)'";
    while ((await value(other, sleeping)) === 0);
    new pg.Client({ connectionString }).cancel(client, query);
    await assert.rejects(ended, { code: "57014" });
    assert.equal(await value(client, "SELECT 1"), 1);
    await other.end();
  },

  async "a cursor reads in portions"(client) {
    await client.query("BEGIN");
    const cursor = client.query(new Cursor("SELECT generate_series(1, 1000) AS n"));
    let total = 0;
    for (let rows; (rows = await cursor.read(100)).length > 0; ) for (const { n } of rows) total += n;
    await client.query("COMMIT");
    assert.equal(total, 500500);
  },

  async "queries sent at once are answered in order"(client) {
    const answers = await Promise.all(Array.from({ length: 200 }, (_, n) => value(client, "SELECT $1::int", [n])));
    assert.deepEqual(answers, Array.from({ length: 200 }, (_, n) => n));
  },

  async "notices reach their listener"(client) {
    const heard = [];
    client.on("notice", (notice) => heard.push(notice.message));
    await client.query("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$");
    assert.deepEqual(heard, ["one", "two"]);
  },

  async "errors leave the connection usable"(client) {
    for (const [sql, code] of [["SELEC 1", "42601"], ["SELECT * FROM nowhere", "42P01"], ["SELECT 1/0", "22012"]]) {
      await assert.rejects(client.query(sql), { code });
      await assert.rejects(client.query(sql, []), { code });
      assert.equal(await value(client, "SELECT 1"), 1);
    }
  },

  async "a pool of many connections shares few backends"() {
    const pool = new pg.Pool({ connectionString, max: 60 });
    const work = async (n) => {
      for (let round = 0; round < 20; round++) {
        const client = await pool.connect();
        await client.query("BEGIN");
        const first = await value(client, "SELECT txid_current()");
        assert.equal(await value(client, "SELECT $1::int * 1000 + $2::int", [n, round]), n * 1000 + round);
        assert.equal(await value(client, "SELECT txid_current()"), first);
        await client.query("COMMIT");
        client.release();
      }
    };
    await Promise.all(Array.from({ length: 100 }, (_, n) => work(n)));
    await pool.end();
  },
};

for (const [name, check] of Object.entries(checks)) {
  const client = await connect();
  await check(client);
  await client.end();
  console.log("ok", name);
}
