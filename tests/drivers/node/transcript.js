// The transcript of a program: each step under its title, and what it saw. It is the same on a direct connection and
// through pgweir, so it has nothing of one moment in it (no process ids, no times).

import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";

export const url = process.env.DATABASE_URL;
export const schema = process.env.SCHEMA;

/** The first line: the program and its version, as installed. */
export function begin(name, installed) {
  const manifest = new URL(`node_modules/${installed}/package.json`, import.meta.url);
  console.log(`${name} ${JSON.parse(readFileSync(manifest)).version}`);
}

const plain = (_, value) => (typeof value === "bigint" ? `${value}n` : value);

export function show(...values) {
  console.log(values.map((value) => JSON.stringify(value, plain)).join(" "));
}

export async function step(title, act) {
  console.log(`== ${title}`);
  const value = await act();
  if (value !== undefined) show(value);
}

/** Shows the error that has to come, by what Postgres says of it. */
export async function fails(promise) {
  const error = await promise.then(() => undefined, (error) => error);
  if (error === undefined) throw new Error("an error was expected");
  let said = error;
  while (said && said.code === undefined) said = said.original ?? said.driverError ?? said.cause;
  if (said === undefined) throw error;
  show("error", said.code, said.severity, said.message.split("\n").at(-1));
}

/** Many at once, more than there are backends. */
export async function crowd(size, act) {
  return Promise.all(Array.from({ length: size }, (_, n) => act(n)));
}

/** Asks again until the answer is this. */
export async function eventually(expected, ask) {
  for (const end = Date.now() + 60_000; ; ) {
    const answer = await ask();
    if (isDeepStrictEqual(answer, expected)) return answer;
    if (Date.now() > end) throw new Error(`still ${JSON.stringify(answer)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
