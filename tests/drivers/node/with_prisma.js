// Prisma with its driver adapter for node-postgres: the query compiler runs in this process.

import { createRequire } from "node:module";
import { PrismaPg } from "@prisma/adapter-pg";
import { begin, crowd, schema, show, step, url } from "./transcript.js";

const { Prisma, PrismaClient } = createRequire(import.meta.url)("./node_modules/.prisma-pgweir");

begin("Prisma", "@prisma/client");
const connect = () => new PrismaClient({ adapter: new PrismaPg({ connectionString: url, max: 4 }, { schema }) });
let prisma = connect();

await step("tables by raw SQL", async () => {
  for (const statement of [
    `CREATE TYPE "Mood" AS ENUM ('CALM', 'BUSY')`,
    `CREATE TABLE "Author" (id serial PRIMARY KEY, name text NOT NULL UNIQUE, profile jsonb, tags text[], mood "Mood" NOT NULL DEFAULT 'CALM')`,
    `CREATE TABLE "Book" (id serial PRIMARY KEY, title text NOT NULL, cents bigint NOT NULL DEFAULT 0, price numeric(12, 2), cover bytea,
       since timestamptz(3) NOT NULL DEFAULT '2024-02-29T12:00:00Z', "authorId" int NOT NULL REFERENCES "Author")`,
  ]) await prisma.$executeRawUnsafe(statement);
});

await step("nested writes, arrays, json, enums, numbers and bytes", async () => {
  show(await prisma.author.create({
    data: {
      name: "Ada", tags: ["x", "y,z", '"q"'], profile: { deep: [1, null] }, mood: "BUSY",
      books: { create: [{ title: "One", cents: 9007199254740993n, price: "1234567890.12", cover: Buffer.from([0, 255]) }, { title: "Two" }] },
    },
    include: { books: true },
  }));
  show(await prisma.author.createManyAndReturn({ data: [{ name: "Bob" }, { name: "Cleo", profile: Prisma.JsonNull }] }));
});

await step("reads: filters, relations, pages and groups", async () => {
  show(await prisma.author.findMany({ where: { OR: [{ tags: { has: "x" } }, { profile: { path: ["deep"], array_contains: 1 } }] }, select: { name: true } }));
  await prisma.book.createMany({ data: Array.from({ length: 300 }, (_, n) => ({ title: `Volume ${n}`, cents: n, authorId: 2 + (n % 2) })) });
  show(await prisma.book.findMany({ orderBy: { id: "desc" }, skip: 10, take: 2, select: { title: true, author: { select: { name: true } } } }));
  show(await prisma.book.groupBy({ by: ["authorId"], _sum: { cents: true }, _count: true, orderBy: { authorId: "asc" } }));
});

await step("upserts", async () => {
  const upsert = (name) => prisma.author.upsert({ where: { name }, create: { name }, update: { tags: { push: "again" } } });
  show(await upsert("Bob"), (await upsert("Dora")).name);
});

await step("transactions, of a list and interactive", async () => {
  show((await prisma.$transaction([prisma.author.count(), prisma.book.count()])));
  await prisma.$transaction(async (tx) => {
    await tx.author.update({ where: { name: "Bob" }, data: { mood: "BUSY" } });
    show(await tx.$queryRaw`SHOW transaction_isolation`);
  }, { isolationLevel: "Serializable", maxWait: 60_000, timeout: 60_000 });
  const refused = prisma.$transaction([prisma.author.create({ data: { name: "Eve" } }), prisma.author.create({ data: { name: "Ada" } })]);
  show(await refused.catch(({ code }) => code), await prisma.author.count({ where: { name: "Eve" } }));
});

await step("many transactions at once", async () => {
  await crowd(20, (n) => prisma.$transaction(async (tx) => {
    const [ada] = await tx.$queryRaw`SELECT id FROM "Author" WHERE name = 'Ada' FOR UPDATE`;
    await tx.book.updateMany({ where: { authorId: ada.id, title: "Two" }, data: { cents: { increment: n } } });
    if (n % 4 === 0) throw new Error("not this one");
  }, { maxWait: 60_000, timeout: 60_000 }).catch((error) => {
    if (error.message !== "not this one") throw error;
  }));
  show((await prisma.book.findFirst({ where: { title: "Two" } })).cents);
});

await step("raw queries with parameters", async () => {
  const sums = await crowd(20, async (n) => (await prisma.$queryRaw`SELECT ${n}::int + ${1}::int AS sum`)[0].sum);
  show(sums);
  show(await prisma.$queryRaw`SELECT ${["a", "b"]}::text[] AS list, ${new Date(0)}::timestamptz AS epoch, ${Prisma.sql`2 + 2`} AS four`);
});

await step("a timeout of the transaction's own", async () => {
  const slow = prisma.$transaction(async (tx) => {
    await tx.$executeRaw`SET LOCAL statement_timeout = '3s'`;
    await tx.$queryRaw`SELECT 1 FROM pg_sleep(60)`;
  }, { maxWait: 60_000, timeout: 60_000 });
  const { code, meta } = await slow.catch((error) => error);
  show(code, meta?.driverAdapterError?.cause?.originalCode);
  show(await prisma.$queryRaw`SELECT current_setting('statement_timeout') AS limit`);
});

await step("errors, and the client goes on", async () => {
  for (const wrong of [prisma.author.create({ data: { name: "Ada" } }), prisma.book.create({ data: { title: "x", authorId: 999 } }),
    prisma.author.findUniqueOrThrow({ where: { name: "nobody" } }), prisma.$queryRaw`SELECT 1 / ${0}::int`]) {
    show(await wrong.then(() => "no error", ({ code }) => code));
  }
  show(await prisma.author.count());
});

await step("disconnect and connect again", async () => {
  await prisma.$disconnect();
  prisma = connect();
  show(await prisma.author.findFirst({ where: { name: "Cleo" } }));
  await prisma.$disconnect();
});
