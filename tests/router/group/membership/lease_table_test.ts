/** Keys that lapse: late ones are reported, none is late while the server is away, and there are never too many. */

import assert from "node:assert/strict";
import { LeaseTable } from "../../../../router/group/membership/lease_table.ts";
import { until } from "../../../support/until.ts";

const LEASE_MS = 40;

interface Stage {
  readonly table: LeaseTable;
  readonly late: string[];
  /** Keys at each change. */
  readonly changes: string[];
}

async function withTable(play: (stage: Stage) => Promise<void>): Promise<void> {
  const [late, changes] = [[] as string[], [] as string[]];
  const table: LeaseTable = new LeaseTable({
    leaseMs: LEASE_MS,
    onChange: () => changes.push(table.values.map(([key, text]) => `${key}=${text}`).join()),
    onLate: (key, revision) => late.push(`${key}@${revision}`),
  });
  try {
    await play({ table, late, changes });
  } finally {
    table.close();
  }
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

Deno.test("LeaseTable reports a burst of changes once, in the order of the keys, and no renewal", () =>
  withTable(async ({ table, changes }) => {
    table.put("b", { text: "1", revision: 1 });
    table.put("a", { text: "2", revision: 2 });
    await until(() => changes.length === 1);
    table.put("a", { text: "2", revision: 3 });
    table.put("b", { text: "3", revision: 4 });
    await until(() => changes.length === 2);
    table.delete("a");
    table.delete("unknown");
    // It was put again while its lapse was looked into.
    table.delete("b", 1);
    await until(() => changes.length === 3);
    assert.deepEqual(changes, ["a=2,b=1", "a=2,b=3", "b=3"]);
  }));

Deno.test("LeaseTable.onLate() names a key that was not put again, with the revision it had, and keeps it", () =>
  withTable(async ({ table, late }) => {
    table.put("a", { text: "", revision: 1 });
    table.put("a", { text: "", revision: 2 });
    await until(() => late.length === 1);
    assert.deepEqual([late, table.values], [["a@2"], [["a", ""]]]);
  }));

Deno.test("LeaseTable.suspend() lets no key lapse until it is resumed, and resume() is news even without a key", () =>
  withTable(async ({ table, late, changes }) => {
    table.resume();
    await until(() => changes.length === 1);
    table.put("a", { text: "", revision: 1 });
    table.suspend();
    await pause(3 * LEASE_MS);
    assert.deepEqual(late, []);
    table.resume();
    await until(() => late.length === 1);
  }));

Deno.test("LeaseTable keeps 256 keys and no more, but those for as long as they are put", () =>
  withTable(({ table }) => {
    for (let i = 0; i < 300; i++) table.put(`key-${i}`, { text: "", revision: i });
    assert.equal(table.values.length, 256);
    table.put("key-0", { text: "again", revision: 300 });
    table.delete("key-1");
    table.put("key-299", { text: "new", revision: 301 });
    const texts = new Map(table.values);
    assert.deepEqual([texts.get("key-0"), texts.get("key-299"), texts.has("key-1")], ["again", "new", false]);
    return Promise.resolve();
  }));
