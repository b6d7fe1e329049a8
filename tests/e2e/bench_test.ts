/** The `bench` command as a user runs it, on the smallest shape: that it measures all it says, not how fast. */

import assert from "node:assert/strict";
import { runCli } from "../support/cli.ts";

const TINY = ["bench", "--random", "tiny", "--kv-tokens", "1024", "--tokens", "2"];

/** Tables by their first line of cells. */
function tablesOf(text: string): { readonly columns: string[]; readonly rows: string[][] }[] {
  return text.split("\n\n").filter((block) => block.startsWith("|")).map((block) => {
    const [columns = [], , ...rows] = block.split("\n").map((line) => line.slice(2, -2).split(" | "));
    return { columns, rows };
  });
}

Deno.test("bench measures corrections on copied caches, alone and with two workers, in finite figures", async () => {
  const corrections = ["--corrections", "3,5", "--agreement", "0.5,1", "--fill", "copied", "--cycles", "2"];
  const context = ["--contexts", "130,9000", "--budget", "64", "--workers", "1,2", "--share-gpu"];
  const { code, stdout, stderr } = await runCli([...TINY, ...corrections, ...context]);
  assert.equal(code, 0, stderr);
  const [speed, exchange, paces, spans, rounds] = tablesOf(stdout);
  assert.deepEqual(speed?.rows.map((row) => [...row.slice(0, 5)]), [
    ["1", "130", "–", "–", "dense"],
    ["1", "130", "–", "–", "sparse"],
    ["2", "130", "–", "–", "dense"],
    ["2", "130", "–", "–", "sparse"],
  ]);
  assert.deepEqual(exchange?.rows.map((row) => row[2]), ["dense", "sparse"]);
  assert.deepEqual(paces?.rows.map((row) => row[2]?.replace(/stride \d+/, "stride S")), [
    ...Array(2).fill([
      "dense",
      "sparse",
      "sparse, refresh every 3",
      "sparse, refresh every 5",
      "lossless at agreement 0.5, stride S",
      "lossless at agreement 1, stride S",
    ]).flat(),
  ]);
  const work = ["refresh 3", "refresh 5", ...[2, 3, 4, 6, 8, 12, 16].map((rows) => `verification ${rows}`)];
  assert.deepEqual(spans?.rows.map((row) => `${row[2]} ${row[3]}`), [...work, ...work]);
  assert.deepEqual(rounds?.columns.slice(-2), ["ms/token at 0.5", "ms/token at 1"]);
  assert.equal(rounds?.rows.length, 14);
  assert.doesNotMatch(stdout, /NaN|Infinity|undefined/);
  assert.match(stdout, /not measured, as they do not fit: 9000/);
  assert.match(stdout, /^\* 2 workers, context 130: refresh is .*faster than dense .*\(of 3, 5\)$/m);
});

Deno.test("bench --json tells all figures; without corrections there are none, and prompts are measured", async () => {
  const { code, stdout, stderr } = await runCli([...TINY, "--contexts", "100", "--budget", "64", "--json"]);
  assert.equal(code, 0, stderr);
  const { fill, groups: [{ figures: [figures] }] } = JSON.parse(stdout);
  assert.equal(fill, "prefill");
  assert.deepEqual(Object.keys(figures), ["context", "prefill", "decode"]);
  assert.ok(figures.prefill.tokensPerSecond > 0);

  const corrected = await runCli([...TINY, "--contexts", "100", "--budget", "64", "--json", "--corrections", "4"]);
  const { corrections } = JSON.parse(corrected.stdout).groups[0].figures[0];
  const [refresh] = corrections.refresh;
  assert.deepEqual([corrections.rounds, corrections.lossless], [[], []]);
  assert.deepEqual([refresh.stride, refresh.cycles], [4, 8]);
  for (
    const figure of [
      refresh.cycleMs,
      refresh.msPerToken,
      refresh.teraflopPerSecond,
      ...Object.values(refresh.correction),
    ]
  ) {
    assert.ok(Number.isFinite(figure), JSON.stringify(refresh));
  }
});

Deno.test("bench refuses an agreement that is none, before it starts anything", async () => {
  const { code, stderr } = await runCli([...TINY, "--agreement", "95"]);
  assert.equal(code, 2);
  assert.equal(
    stderr,
    'Cannot parse --agreement: must be a number from 0 to 1, or several parted by commas, given "95"\n',
  );
});
