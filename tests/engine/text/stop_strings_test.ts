/** Stop strings are found wherever the text is cut, and nothing that may become one gets out. */

import assert from "node:assert/strict";
import fc from "fast-check";

import { type StopOptions, StopStrings } from "../../../engine/text/stop_strings.ts";

/** All text released for these pieces, and the stop string that was found. */
function run(stops: readonly string[], pieces: readonly string[], options: StopOptions = {}) {
  const watcher = new StopStrings(stops, options);
  let text = "";
  let stopped: string | undefined;
  for (const piece of pieces) {
    const released = watcher.push(piece);
    text += released.text;
    stopped = released.stopped;
  }
  return { text: text + watcher.flush(), stopped };
}

Deno.test("StopStrings finds a stop string across pieces and drops what follows", () => {
  const pieces = ["one\nQ", "ues", "tion: two", " three"];
  assert.deepEqual(run(["\nQuestion:"], pieces), { text: "one", stopped: "\nQuestion:" });
  assert.deepEqual(run(["\nQuestion:"], pieces, { includeStop: true }), {
    text: "one\nQuestion:",
    stopped: "\nQuestion:",
  });
});

Deno.test("StopStrings holds back no more than what may become a stop string", () => {
  const watcher = new StopStrings(["abcd", "xb"]);
  assert.deepEqual(watcher.push("zab"), { text: "z", stopped: undefined });
  assert.deepEqual(watcher.push("c"), { text: "", stopped: undefined });
  assert.deepEqual(watcher.push("a"), { text: "abc", stopped: undefined });
  assert.deepEqual(watcher.push("x"), { text: "a", stopped: undefined });
  assert.equal(watcher.flush(), "x");
});

Deno.test("StopStrings takes the one that is complete first, of those at one end the longest", () => {
  assert.deepEqual(run(["cd", "abcde"], ["abcdef"]), { text: "ab", stopped: "cd" });
  assert.deepEqual(run(["bc", "abc"], ["abcd"]), { text: "", stopped: "abc" });
});

Deno.test("StopStrings releases nothing after a stop and ignores empty strings", () => {
  const watcher = new StopStrings(["", "x"]);
  assert.deepEqual(watcher.push("axb"), { text: "a", stopped: "x" });
  assert.deepEqual(watcher.push("c"), { text: "", stopped: "x" });
  assert.equal(watcher.flush(), "");
  assert.deepEqual(run([], ["a", "b"]), { text: "ab", stopped: undefined });
});

/** What the pieces must come to, found in the whole text at once. */
function expected(stops: readonly string[], text: string) {
  const found = stops.filter((stop) => stop !== "" && text.includes(stop))
    .map((stop) => ({ stop, end: text.indexOf(stop) + stop.length }))
    .sort((a, b) => a.end - b.end || b.stop.length - a.stop.length)[0];
  if (found === undefined) return { text, stopped: undefined };
  return { text: text.slice(0, found.end - found.stop.length), stopped: found.stop };
}

Deno.test("StopStrings gives the same for any pieces of a text", () => {
  const letters = (maxLength: number) => fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength });
  fc.assert(
    fc.property(fc.array(letters(4), { maxLength: 3 }), fc.array(letters(3), { maxLength: 15 }), (stops, pieces) => {
      assert.deepEqual(run(stops, pieces), expected(stops, pieces.join("")));
    }),
    { numRuns: 2000 },
  );
});
