// Sequelize: models, transactions, and the functions and types of Postgres that it knows.

import { DataTypes, Op, QueryTypes, Sequelize, Transaction } from "sequelize";
import { begin, crowd, fails, schema, show, step, url } from "./transcript.js";

begin("Sequelize", "sequelize");
const options = { dialect: "postgres", logging: false, define: { schema }, pool: { max: 4 } };
let db = new Sequelize(url, options);

const User = db.define("user", {
  name: { type: DataTypes.STRING, unique: true },
  tags: DataTypes.ARRAY(DataTypes.STRING),
  profile: DataTypes.JSONB,
  span: DataTypes.RANGE(DataTypes.INTEGER),
  mood: DataTypes.ENUM("calm", "busy"),
  photo: DataTypes.BLOB,
  visits: { type: DataTypes.BIGINT, defaultValue: 0 },
}, { timestamps: false });
const Task = db.define("task", { title: DataTypes.STRING, done: DataTypes.BOOLEAN }, { timestamps: false });
User.hasMany(Task);
Task.belongsTo(User);

await step("models are made into tables, twice", async () => {
  await db.authenticate();
  await db.sync();
  await db.sync();
  show(Object.keys(await db.getQueryInterface().describeTable({ tableName: "users", schema })));
});

await step("INSERT … RETURNING, arrays, json, ranges, enums and bytes", async () => {
  const row = { name: "Ada", tags: ["x", "y,z"], profile: { a: { b: [1, 2] } }, span: [1, 5], mood: "busy", photo: Buffer.from([0, 1, 255]) };
  show((await User.create(row)).id);
  show(await User.findOne({ where: { profile: { a: { b: { [Op.ne]: null } } } }, raw: true }));
  show((await User.bulkCreate([{ name: "Bob" }, { name: "Cleo", mood: "calm" }], { returning: true })).map(({ id }) => id));
});

await step("upsert and find or create", async () => {
  const [bob, created] = await User.upsert({ name: "Bob", visits: 7 }, { conflictFields: ["name"] });
  show(bob.id, created);
  const found = await crowd(8, () => User.findOrCreate({ where: { name: "Dora" }, defaults: { mood: "calm" } }));
  show(found.filter(([, made]) => made).length, new Set(found.map(([user]) => user.name)).size);
});

await step("transactions with savepoints", async () => {
  await db.transaction({ isolationLevel: Transaction.ISOLATION_LEVELS.REPEATABLE_READ }, async (transaction) => {
    await Task.create({ title: "outer", userId: 1 }, { transaction });
    await fails(db.transaction({ transaction }, async (inner) => {
      await Task.create({ title: "inner", userId: 1 }, { transaction: inner });
      await Task.create({ title: "inner", userId: 999 }, { transaction: inner });
    }));
    show(await db.query("SHOW transaction_isolation", { transaction, type: QueryTypes.SELECT }));
  });
  await fails(db.transaction(async (transaction) => {
    await Task.create({ title: "dropped" }, { transaction });
    await User.create({ name: "Ada" }, { transaction });
  }));
  show((await Task.findAll({ raw: true, order: ["id"], include: { model: User, attributes: ["name"] } })).map(({ title, ...rest }) => [title, rest["user.name"]]));
});

await step("many at once, on one row", async () => {
  await crowd(24, (n) => db.transaction(async (transaction) => {
    const ada = await User.findOne({ where: { name: "Ada" }, lock: transaction.LOCK.UPDATE, transaction });
    await ada.increment("visits", { by: 1, transaction });
    if (n % 3 === 0) throw new Error("not this one");
  }).catch((error) => {
    if (error.message !== "not this one") throw error;
  }));
  show((await User.findOne({ where: { name: "Ada" } })).visits);
});

await step("statements with bound parameters", async () => {
  const sums = await crowd(20, async (n) => (await db.query("SELECT $a::int + $b::int AS sum", { bind: { a: n, b: 1 }, type: QueryTypes.SELECT }))[0].sum);
  show(sums);
  show(await User.count({ where: { tags: { [Op.contains]: ["x"] }, span: { [Op.contains]: 3 } } }));
});

await step("a timeout of the transaction's own", async () => {
  await fails(db.transaction(async (transaction) => {
    await db.query("SET LOCAL statement_timeout = 3000", { transaction });
    await db.query("SELECT pg_sleep(60)", { transaction });
  }));
  show(await db.query("SHOW statement_timeout", { type: QueryTypes.SELECT }));
});

await step("errors, and the pool goes on", async () => {
  await fails(User.create({ name: "Ada" }));
  await fails(User.create({ name: "x", mood: "none" }));
  await fails(db.query("SELECT 1/0"));
  show((await User.findAll({ attributes: ["name"], order: ["name"], raw: true })).map(({ name }) => name));
});

await step("disconnect and connect again", async () => {
  await db.close();
  db = new Sequelize(url, { ...options, timezone: "+05:30", dialectOptions: { application_name: "again", statement_timeout: 4000 } });
  const settings = "SELECT current_setting('timezone') AS zone, current_setting('statement_timeout') AS limit, current_setting('application_name') AS name";
  await crowd(6, async (n) => n === 0 && show(await db.query(settings, { type: QueryTypes.SELECT })));
  await db.close();
});
