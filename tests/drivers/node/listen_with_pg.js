// Listeners of node-postgres against DATABASE_URL: prints `ok name` per check, fails on the first that does not hold.

import assert from "node:assert/strict";
import { on } from "node:events";
import pg from "pg";

const connectionString = process.env.DATABASE_URL;

// No notification takes that long.
const patience = 60_000;

async function connect() {
  const client = new pg.Client({ connectionString });
  await client.connect();
  return client;
}

// What `client` hears from now on: a function that waits for so many, as [channel, payload, whose].
function listener(client) {
  const messages = on(client, "notification", { signal: AbortSignal.timeout(patience) });
  return async (count) => {
    const heard = [];
    while (heard.length < count) {
      const [{ channel, payload, processId }] = (await messages.next()).value;
      heard.push([channel, payload, processId]);
    }
    return heard;
  };
}

const checks = {
  async "notifications arrive in order from whoever sent them"(client, other) {
    const heard = listener(client);
    await client.query('LISTEN jobs; LISTEN "Other jobs"');
    await other.query("NOTIFY jobs, 'it''s one'");
    const expected = [["jobs", "it's one", other.processID]];
    for (let n = 0; n < 20; n++) {
      await other.query({ name: "notify", text: "SELECT pg_notify($1, $2)", values: ["Other jobs", `n ${n}`] });
      expected.push(["Other jobs", `n ${n}`, other.processID]);
    }
    await client.query("SELECT pg_notify('jobs', 'my own') AS done");
    expected.push(["jobs", "my own", client.processID]);
    assert.deepEqual(await heard(expected.length), expected);
  },

  async "only what is committed arrives"(client, other) {
    const heard = listener(client);
    await client.query("LISTEN jobs");
    await other.query("BEGIN; NOTIFY jobs, 'rolled back'");
    await other.query("ROLLBACK");
    await other.query("BEGIN");
    await other.query("SELECT pg_notify('jobs', $1)", ["kept"]);
    await other.query("SAVEPOINT s; NOTIFY jobs, 'to a savepoint'");
    await other.query("ROLLBACK TO s");
    await other.query("NOTIFY jobs, 'kept'; NOTIFY jobs, 'last'");
    await other.query("COMMIT");
    await assert.rejects(other.query("NOTIFY jobs, 'failed'; SELECT 1/0"), { code: "22012" });
    await other.query("NOTIFY jobs, 'end'");
    assert.deepEqual((await heard(3)).map(([, payload]) => payload), ["kept", "last", "end"]);
  },

  async "a client that stopped listening hears nothing"(client, other) {
    const heard = listener(client);
    await client.query("LISTEN jobs; LISTEN done");
    await client.query("UNLISTEN jobs");
    await other.query("NOTIFY jobs; NOTIFY done");
    assert.deepEqual(await heard(1), [["done", "", other.processID]]);
    const { rows } = await client.query("SELECT * FROM pg_listening_channels()");
    assert.deepEqual(rows, [{ pg_listening_channels: "done" }]);
  },

  async "many listeners hear every writer in its order"() {
    const listeners = await Promise.all(Array.from({ length: 20 }, connect));
    const all = listeners.map(listener);
    await Promise.all(listeners.map((client) => client.query("LISTEN many")));
    const pool = new pg.Pool({ connectionString, max: 10 });
    const write = async (name) => {
      const client = await pool.connect();
      for (let n = 0; n < 20; n++) {
        await client.query("BEGIN");
        await client.query("SELECT pg_notify($1, $2)", ["many", `${name} ${n}`]);
        await client.query("COMMIT");
      }
      client.release();
    };
    await Promise.all(Array.from({ length: 10 }, (_, name) => write(name)));
    for (const heard of all) {
      const came = (await heard(200)).map(([, payload]) => payload);
      for (let name = 0; name < 10; name++) {
        const expected = Array.from({ length: 20 }, (_, n) => `${name} ${n}`);
        assert.deepEqual(came.filter((payload) => payload.startsWith(`${name} `)), expected);
      }
    }
    await Promise.all(listeners.map((client) => client.end()));
    await pool.end();
  },
};

for (const [name, check] of Object.entries(checks)) {
  const [client, other] = [await connect(), await connect()];
  await check(client, other);
  await Promise.all([client.end(), other.end()]);
  console.log("ok", name);
}
