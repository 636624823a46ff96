// Drizzle on node-postgres, as a service uses it: a pool, queries built from tables, and SQL where these end.

import { and, arrayContains, desc, eq, gt, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import { bigint, boolean, integer, jsonb, numeric, pgTable, serial, text, timestamp, uuid } from "drizzle-orm/pg-core";
import pg from "pg";
import { begin, crowd, fails, show, step, url } from "./transcript.js";

begin("Drizzle", "drizzle-orm");
const pool = new pg.Pool({ connectionString: url, max: 4 });
const db = drizzle(pool);

const users = pgTable("users", {
  id: serial().primaryKey(),
  name: text().notNull().unique(),
  tags: text().array(),
  profile: jsonb(),
  balance: numeric({ precision: 12, scale: 2 }).default("0"),
  visits: bigint({ mode: "bigint" }).default(0n),
  active: boolean().default(true),
  key: uuid(),
  since: timestamp({ withTimezone: true, mode: "string" }),
});
const orders = pgTable("orders", {
  id: serial().primaryKey(),
  userId: integer().references(() => users.id),
  amount: integer().notNull(),
});

await step("tables and a migration under an advisory lock", async () => {
  await db.transaction(async (tx) => {
    await tx.execute(sql`SELECT pg_advisory_xact_lock(hashtext(current_schema()))`);
    await tx.execute(sql`CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL UNIQUE, tags text[], profile jsonb,
      balance numeric(12, 2) DEFAULT 0, visits bigint DEFAULT 0, active boolean DEFAULT true, key uuid, since timestamptz)`);
    await tx.execute(sql`CREATE TABLE orders (id serial PRIMARY KEY, "userId" int REFERENCES users, amount int NOT NULL)`);
  });
});

await step("INSERT … RETURNING, arrays, json, numbers and dates", async () => {
  const row = { name: "Ada", tags: ["a,b", '"q"', ""], profile: { deep: [1, { x: null }], text: "it's" }, balance: "1234567890.12",
    visits: 9007199254740993n, key: "00000000-0000-4000-8000-00000000000a", since: "2024-02-29 12:00:00+00" };
  show(await db.insert(users).values(row).returning());
  show(await db.insert(users).values([{ name: "Bob" }, { name: "Cleo", tags: ["x"] }]).returning({ id: users.id }));
  show(await db.select({ name: users.name }).from(users).where(arrayContains(users.tags, ["x"])));
});

await step("an upsert", async () =>
  db.insert(users).values({ name: "Bob", visits: 5n }).onConflictDoUpdate({ target: users.name, set: { visits: 5n } }).returning());

await step("prepared statements", async () => {
  const byName = db.select().from(users).where(eq(users.name, sql.placeholder("name"))).prepare("by_name");
  const names = ["Ada", "Bob", "Cleo", "nobody"];
  const found = await crowd(24, async (n) => (await byName.execute({ name: names[n % 4] })).length);
  show(found.join(""));
});

await step("a transaction with savepoints", async () => {
  await db.transaction(async (tx) => {
    await tx.insert(orders).values({ userId: 1, amount: 10 });
    await fails(tx.transaction(async (inner) => {
      await inner.insert(orders).values({ userId: 1, amount: 20 });
      await inner.insert(orders).values({ userId: 999, amount: 20 });
    }));
    await tx.transaction(async (inner) => inner.insert(orders).values({ userId: 2, amount: 30 }));
  });
  show(await db.select({ amount: orders.amount }).from(orders).orderBy(orders.id));
});

await step("a rollback, and isolation levels", async () => {
  await db.transaction(async (tx) => {
    await tx.insert(orders).values({ userId: 1, amount: 99 });
    tx.rollback();
  }).catch((error) => show(error.constructor.name));
  await db.transaction(async (tx) => {
    show((await tx.execute(sql`SHOW transaction_isolation`)).rows);
    await fails(tx.transaction((inner) => inner.insert(orders).values({ userId: 1, amount: 1 })));
  }, { isolationLevel: "serializable", accessMode: "read only" });
  show(await db.$count(orders));
});

await step("many transactions at once", async () => {
  await crowd(40, (n) => db.transaction(async (tx) => {
    const [{ id }] = await tx.insert(orders).values({ userId: 1 + (n % 3), amount: 100 }).returning();
    await tx.update(orders).set({ amount: sql`${orders.amount} + ${n}` }).where(eq(orders.id, id));
    await tx.select({ id: orders.id }).from(orders).where(eq(orders.id, id)).for("update");
    if (n % 4 === 0) tx.rollback();
  }).catch((error) => {
    if (error.constructor.name !== "TransactionRollbackError") throw error;
  }));
  const total = sql`sum(${orders.amount})`.mapWith(Number);
  show(await db.select({ user: users.name, total }).from(users).innerJoin(orders, eq(orders.userId, users.id))
    .where(and(gt(orders.amount, 50), eq(users.active, true))).groupBy(users.name).orderBy(desc(users.name)));
});

await step("a timeout of the transaction's own", async () => {
  await fails(db.transaction(async (tx) => {
    await tx.execute(sql`SET LOCAL statement_timeout = '3s'`);
    await tx.execute(sql`SELECT pg_sleep(60)`);
  }));
  show((await db.execute(sql`SHOW statement_timeout`)).rows);
});

await step("errors, and the pool goes on", async () => {
  await fails(db.insert(users).values({ name: "Ada" }));
  await fails(db.execute(sql`SELECT 1 / ${0}::int`));
  await fails(db.execute(sql`SELEC`));
  show((await db.execute(sql`SELECT ${"x"}::text || ${"y"} AS xy`)).rows);
});

await pool.end();
