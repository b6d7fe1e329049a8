/** The `bench` command as a user runs it, on the smallest shape: that it measures all it says, not how fast. */

import assert from "node:assert/strict";
import { runCli } from "../../support/cli.ts";

const TINY = ["bench", "--random", "tiny", "--kv-tokens", "1024", "--tokens", "2", "--untimed", "1"];

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

Deno.test("bench --json writes all figures, and --compare prints ratios to them", async () => {
  const file = await Deno.makeTempFile({ suffix: ".json" });
  try {
    const common = [...TINY, "--contexts", "100", "--budget", "64"];
    const first = await runCli([
      ...common,
      "--json",
      file,
      "--corrections",
      "4",
      "--batch",
      "3",
      "--batch-context",
      "80",
      "--prompts",
      "70,2000",
    ]);
    assert.equal(first.code, 0, first.stderr);
    const { fill, groups: [{ figures: [figures], batches, prompts, skipped }] } = JSON.parse(
      await Deno.readTextFile(file),
    );
    assert.equal(fill, "prefill");
    assert.deepEqual(Object.keys(figures), ["context", "prefill", "decode", "corrections"]);
    assert.ok(figures.prefill.tokensPerSecond > 0);
    assert.deepEqual([prompts.map(({ context }: { context: number }) => context), skipped], [[70], [2000]]);
    assert.ok(prompts[0].tokensPerSecond > 0);
    const { refresh: [refresh], rounds, lossless } = figures.corrections;
    assert.deepEqual([rounds, lossless], [[], []]);
    assert.deepEqual([refresh.stride, refresh.cycles], [4, 8]);
    const { cycleMs, msPerToken, teraflopPerSecond, correction } = refresh;
    for (const figure of [cycleMs, msPerToken, teraflopPerSecond, ...Object.values(correction)]) {
      assert.ok(Number.isFinite(figure), JSON.stringify(refresh));
    }
    const measured = batches.map(({ batch, attention }: { batch: number; attention: string }) => [batch, attention]);
    assert.deepEqual(measured, [[3, "dense"], [3, "sparse"]]);

    const { code, stdout, stderr } = await runCli([...common, "--compare", file]);
    assert.equal(code, 0, stderr);
    const ratios = tablesOf(stdout).find(({ columns }) => columns[0] === "figure");
    assert.deepEqual(ratios?.rows.map(([name]) => name), [
      "1 worker, 100: prefill tokens/s",
      "1 worker, 100: decode dense tokens/s",
      "1 worker, 100: decode sparse tokens/s",
    ]);
    assert.match(stdout, /3 figures that both measured, 0 that only this one did, 4 only that one/);
  } finally {
    await Deno.remove(file);
  }
});

Deno.test("bench --profile accounts for every dispatch of a step, and for the step's whole time", async () => {
  const { code, stdout, stderr } = await runCli([
    ...TINY,
    "--contexts",
    "100",
    "--budget",
    "64",
    "--chunk",
    "64",
    "--profile",
  ]);
  assert.equal(code, 0, stderr);
  const tables = tablesOf(stdout);
  const budgets = tables.find(({ columns }) => columns.includes("host ms"))?.rows ?? [];
  const works = ["decode, dense", "decode, sparse", "correction of 32", "prefill of 64"];
  assert.deepEqual(budgets.map(([, work]) => work), works);
  for (const [, work, ...parts] of budgets) {
    const [step = NaN, ...rest] = parts.slice(0, 5).map(Number);
    assert.ok(Math.abs(step - rest.reduce((sum, ms) => sum + ms, 0)) < 0.01, `${work}: ${parts}`);
  }
  const kernels = tables.find(({ columns }) => columns.includes("kernel"))?.rows ?? [];
  const ofDense = kernels.filter(([, work]) => work === "decode, dense");
  const names = ofDense.map(([, , name]) => name ?? "").join("; ");
  for (const op of ["attention", "rms_norm", "embed", "sample", "1×512×128 f16"]) {
    assert.ok(names.includes(op), names);
  }
  // Three layers of nine dispatches, fewer where one split needs no merge; embedding, norm, head, sample.
  const dispatches = ofDense.reduce((sum, [, , , count]) => sum + Number(count), 0);
  assert.ok(dispatches >= 28 && dispatches <= 32, `${dispatches}: ${names}`);
  assert.doesNotMatch(stdout, /NaN|Infinity|undefined/);
});

Deno.test("bench refuses a file that it did not write, before it starts anything", async () => {
  const { code, stderr } = await runCli([...TINY, "--compare", "deno.json"]);
  assert.equal(code, 2);
  assert.match(stderr, /^Cannot compare with deno\.json: must be a file of bench --json, format 1\n$/);
});

Deno.test("bench refuses an agreement that is none, before it starts anything", async () => {
  const { code, stderr } = await runCli([...TINY, "--agreement", "95"]);
  assert.equal(code, 2);
  assert.equal(
    stderr,
    'Cannot parse --agreement: must be a number from 0 to 1, or several, comma-separated, given "95"\n',
  );
});
