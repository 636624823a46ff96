// Knex: migrations, transactions, streams.

import knex from "knex";
import { begin, crowd, fails, schema, show, step, url } from "./transcript.js";

begin("Knex", "knex");
const options = { client: "pg", connection: url, pool: { min: 0, max: 4 }, searchPath: [schema] };
let db = knex(options);

const migrations = {
  "1_accounts": {
    up: (trx) => trx.schema.createTable("accounts", (table) => {
      table.increments("id");
      table.string("owner").notNullable().unique();
      table.bigInteger("cents").notNullable().defaultTo(0);
      table.specificType("tags", "text[]");
      table.jsonb("extra");
      table.timestamp("since").defaultTo("2024-01-01T00:00:00Z");
    }),
    down: (trx) => trx.schema.dropTable("accounts"),
  },
  "2_index": {
    config: { transaction: false },
    up: (trx) => trx.raw("CREATE INDEX CONCURRENTLY by_cents ON accounts (cents)"),
    down: (trx) => trx.raw("DROP INDEX by_cents"),
  },
};
const migrationSource = {
  getMigrations: async () => Object.keys(migrations),
  getMigrationName: (name) => name,
  getMigration: async (name) => migrations[name],
};

await step("migrations, one outside of a transaction", async () => {
  show(await db.migrate.latest({ migrationSource }));
  show(await db.migrate.currentVersion({ migrationSource }));
  show(await db.migrate.rollback({ migrationSource }));
  show((await db.migrate.latest({ migrationSource }))[0]);
});

await step("INSERT … RETURNING, arrays and json", async () => {
  show(await db("accounts").insert([{ owner: "Ada", cents: 500, tags: ["a", "b c"], extra: { k: [null] } }, { owner: "Bob" }]).returning("*"));
  show(await db("accounts").insert({ owner: "Bob", cents: 3 }).onConflict("owner").merge().returning(["id", "cents"]));
  show(await db("accounts").whereJsonPath("extra", "$.k[0]", "=", null).orWhereRaw("? = any(tags)", ["b c"]).pluck("owner"));
});

await step("transactions with savepoints", async () => {
  await db.transaction(async (trx) => {
    await trx("accounts").where({ owner: "Ada" }).decrement("cents", 100);
    await fails(trx.transaction(async (inner) => {
      await inner("accounts").where({ owner: "Bob" }).increment("cents", 1000);
      await inner.raw("SELECT 1/0");
    }));
    await trx("accounts").where({ owner: "Bob" }).increment("cents", 100);
  }, { isolationLevel: "repeatable read" });
  const trx = await db.transaction();
  await trx("accounts").delete();
  await trx.rollback();
  show(await db("accounts").select("owner", "cents").orderBy("owner"));
});

await step("many transfers at once", async () => {
  await crowd(30, (n) => db.transaction(async (trx) => {
    const [from, to] = n % 2 ? ["Ada", "Bob"] : ["Bob", "Ada"];
    await trx("accounts").whereIn("owner", ["Ada", "Bob"]).orderBy("owner").forUpdate().select();
    await trx("accounts").where({ owner: from }).decrement("cents", n);
    await trx("accounts").where({ owner: to }).increment("cents", n);
  }));
  show(await db("accounts").select("owner", "cents").orderBy("owner"));
});

await step("a stream that is read to its end, and one that is not", async () => {
  await db.batchInsert("accounts", Array.from({ length: 2000 }, (_, n) => ({ owner: `owner ${n}`, cents: n })), 500);
  let sum = 0;
  for await (const row of db("accounts").select("cents").stream({ batchSize: 100 })) sum += Number(row.cents);
  show(sum);
  let seen = 0;
  for await (const _ of db("accounts").select().stream({ batchSize: 10 })) if (++seen === 25) break;
  show(seen, (await db("accounts").count())[0].count);
});

await step("settings of a connection", async () => {
  const narrow = knex({ ...options, pool: { min: 1, max: 1, afterCreate: (raw, done) => raw.query("SET timezone = 'Asia/Tokyo'; SET statement_timeout = '3s'", done) } });
  await crowd(10, () => narrow.raw("SELECT 1"));
  show((await narrow.raw("SELECT '2024-01-01 00:00:00+00'::timestamptz::text AS there")).rows);
  await fails(narrow.raw("SELECT pg_sleep(60)"));
  await narrow.destroy();
  show((await db.raw("SHOW statement_timeout")).rows);
});

await step("errors, and the pool goes on", async () => {
  await fails(db("accounts").insert({ owner: "Ada" }));
  await fails(db("missing").select());
  await fails(db.raw("SELECT ?::int", ["no number"]));
  show(await db("accounts").count().first());
});

await step("disconnect and connect again", async () => {
  await db.destroy();
  db.initialize();
  show((await db.raw("SELECT current_schema() AS schema")).rows);
  await db.destroy();
});
