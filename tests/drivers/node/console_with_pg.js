// The console through node-postgres, at DATABASE_URL: prints `ok name` per check, fails on the first that does not hold.

import assert from "node:assert/strict";
import pg from "pg";
import Cursor from "pg-cursor";

const client = new pg.Client({ connectionString: process.env.DATABASE_URL });
await client.connect();

const used = (rows) => rows.find(({ list }) => list === "used_clients").items;

const checks = {
  async "tables come as text and with their types"() {
    const { rows, fields } = await client.query("SHOW LISTS");
    assert.deepEqual(fields.map(({ name }) => name), ["list", "items"]);
    assert.equal(used(rows), 1);
  },

  async "named statements are kept"() {
    for (let n = 0; n < 20; n++) {
      const { rows } = await client.query({ name: "lists", text: "SHOW LISTS", values: [] });
      assert.equal(used(rows), 1);
    }
  },

  async "binary results are what text says"() {
    const { rows } = await client.query({ text: "SHOW LISTS", values: [], binary: true });
    assert.equal(used(rows), 1);
  },

  async "a cursor reads in portions"() {
    const cursor = client.query(new Cursor("SHOW HELP"));
    assert.equal((await cursor.read(3)).length, 3);
    assert.ok((await cursor.read(1000)).length > 10);
    await cursor.close();
  },

  async "several commands in one text"() {
    const results = await client.query("SHOW STATE; BEGIN; SHOW VERSION; COMMIT");
    assert.deepEqual(results.map(({ command }) => command), ["SHOW", "BEGIN", "SHOW", "COMMIT"]);
    assert.match(results[2].rows[0].version, /^pgweir /);
  },

  async "errors say what to do, and the connection lives on"() {
    const { code, hint } = await client.query("SHOW POOL").catch((error) => error);
    assert.deepEqual([code, hint], ["42601", "Did you mean SHOW POOLS? SHOW HELP lists all commands."]);
    const prepared = client.query("SHOW FDS", []);
    await assert.rejects(prepared, { code: "0A000", message: "pgweir has no SHOW FDS" });
    await assert.rejects(client.query("SHOW LISTS", [1]), { code: "08P01" });
    assert.equal(used((await client.query("SHOW LISTS")).rows), 1);
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log(`ok ${name}`);
}
await client.end();
