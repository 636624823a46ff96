// TypeORM: migrations, repositories, query runners, streams and row locks.

import { DataSource, EntitySchema } from "typeorm";
import { begin, crowd, fails, schema, show, step, url } from "./transcript.js";

begin("TypeORM", "typeorm");

const Author = new EntitySchema({
  name: "Author",
  columns: {
    id: { type: Number, primary: true, generated: "increment" },
    key: { type: "uuid", generated: "uuid", select: false },
    name: { type: String, unique: true },
    tags: { type: "text", array: true, default: [] },
    profile: { type: "jsonb", nullable: true },
    mood: { type: "enum", enum: ["calm", "busy"], default: "calm" },
    version: { type: Number, version: true },
  },
  relations: { books: { type: "one-to-many", target: "Book", inverseSide: "author", cascade: true } },
});
const Book = new EntitySchema({
  name: "Book",
  columns: { id: { type: Number, primary: true, generated: "increment" }, title: { type: String }, price: { type: "numeric", default: 0 } },
  relations: { author: { type: "many-to-one", target: "Author", joinColumn: true, onDelete: "CASCADE" } },
});
class Indexes1700000000000 {
  async up(runner) {
    await runner.query('CREATE INDEX by_title ON "book" (title)');
  }

  async down(runner) {
    await runner.query("DROP INDEX by_title");
  }
}

const source = new DataSource({
  type: "postgres", url, schema, entities: [Author, Book], migrations: [Indexes1700000000000], uuidExtension: "pgcrypto",
  installExtensions: false, extra: { max: 4 },
});

await step("synchronize and migrations", async () => {
  await source.initialize();
  await source.synchronize();
  show((await source.runMigrations({ transaction: "all" })).map(({ name }) => name));
  show(await source.showMigrations());
  await source.undoLastMigration();
  await source.synchronize();
});

const authors = source.getRepository(Author);

await step("cascades, relations, arrays, json and enums", async () => {
  const ada = await authors.save({ name: "Ada", tags: ["a", '"b"', "c,d"], profile: { x: [1, null] }, books: [{ title: "One", price: "12.50" }, { title: "Two" }] });
  show(ada.id, ada.version, ada.books.map(({ id }) => id));
  ada.mood = "busy";
  await authors.save(ada);
  show(await authors.findOne({ where: { name: "Ada" }, relations: { books: true }, order: { books: { id: "ASC" } } }));
});

await step("INSERT … RETURNING and upserts", async () => {
  const inserted = await authors.insert([{ name: "Bob" }, { name: "Cleo" }]);
  show(inserted.identifiers);
  await authors.upsert([{ name: "Bob", mood: "busy" }, { name: "Dora" }], ["name"]);
  show(await authors.find({ select: { name: true, mood: true }, order: { name: "ASC" } }));
});

await step("transactions with savepoints", async () => {
  await source.transaction("SERIALIZABLE", async (manager) => {
    await manager.insert(Book, { title: "outer" });
    await fails(manager.transaction(async (inner) => {
      await inner.insert(Book, { title: "inner" });
      await inner.query("SELECT 1/0");
    }));
    show(await manager.query("SHOW transaction_isolation"));
  });
  await fails(source.transaction(async (manager) => {
    await manager.insert(Book, { title: "dropped" });
    await manager.insert(Author, { name: "Ada" });
  }));
  show(await source.getRepository(Book).find({ select: { title: true }, order: { title: "ASC" } }));
});

await step("a query runner of its own, with a temporary table", async () => {
  const runner = source.createQueryRunner();
  await runner.connect();
  await runner.query("CREATE TEMPORARY TABLE picked (id int)");
  await runner.query("INSERT INTO picked SELECT id FROM author WHERE name < $1", ["C"]);
  show(await runner.query("SELECT count(*)::int AS picked FROM author JOIN picked USING (id)"));
  await runner.query("DROP TABLE picked");
  await runner.query("SET statement_timeout = '3s'");
  await fails(runner.query("SELECT pg_sleep(60)"));
  show(await runner.query("SHOW statement_timeout"));
  await runner.query("RESET statement_timeout");
  await runner.release();
});

await step("many writers that lock a row", async () => {
  await crowd(24, () => source.transaction(async (manager) => {
    const ada = await manager.findOne(Author, { where: { name: "Ada" }, lock: { mode: "pessimistic_write" } });
    await manager.update(Author, ada.id, { profile: { count: (ada.profile.count ?? 0) + 1 } });
  }));
  show((await authors.findOneBy({ name: "Ada" })).profile);
});

await step("pages and aggregates", async () => {
  await source.getRepository(Book).insert(Array.from({ length: 500 }, (_, n) => ({ title: `Volume ${n}`, price: `${n}.25` })));
  const [page, count] = await source.getRepository(Book).findAndCount({ order: { id: "DESC" }, skip: 10, take: 3 });
  show(page.map(({ title }) => title), count);
  show(await source.createQueryBuilder(Book, "b").select("sum(b.price)", "sum").where("b.price > :least", { least: 100 }).getRawOne());
});

await step("errors, and the pool goes on", async () => {
  await fails(source.query("SELECT * FROM missing"));
  await fails(authors.insert({ name: "Ada" }));
  await fails(authors.insert({ name: "x", mood: "none" }));
  show(await source.query("SELECT $1::int + 1 AS two", [1]));
});

await step("disconnect and connect again", async () => {
  await source.destroy();
  await source.initialize();
  show(await source.query("SELECT current_schema() AS schema"));
  await source.destroy();
});
