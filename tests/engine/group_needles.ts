/**
 * Run by hand: `deno run -A tests/engine/group_needles.ts [cases]`. Answers needles of the embedded model on groups of one,
 * two and three engines, dense and sparse, questions decoded row by row, and prints how many answers are those of one.
 */

import { loadTextModel, type NeedleVariant, runNeedle } from "../../engine/evaluation/needles.ts";
import { SessionHost } from "../../engine/evaluation/hand_session.ts";
import { EVALUATION_DATA, readNeedles } from "../../router/commands/eval/evaluation_data.ts";
import { MemoryGroup } from "../support/memory_group.ts";
import { TIDE } from "../support/model_directory.ts";

/** Tokens of each worker's slice: even, uneven, and with one that owns little. */
const GROUPS = [[4096], [2048, 2048], [2048, 1024, 512]];

const VARIANTS: readonly NeedleVariant[] = [
  { name: "dense", sparse: undefined, questionDecoded: true },
  { name: "sparse 64", sparse: { budget: 64, heads: "kv_head" }, questionDecoded: true },
];

const cases = (await readNeedles(EVALUATION_DATA)).filter(({ size }) => size <= 1000).slice(
  0,
  Number(Deno.args[0] ?? 30),
);
const text = await loadTextModel(TIDE);
const print = (line: string) => Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
const alone = new Map<string, string>();

print("| slices | attention | right | as one engine answers |");
print("| --- | --- | --- | --- |");
for (const slices of GROUPS) {
  const group = await MemoryGroup.open({ directory: TIDE }, slices);
  const host = new SessionHost(group, group.map);
  const stop = group.engines[0]?.config.eosTokens ?? [];
  const counts = new Map(VARIANTS.map(({ name }) => [name, { right: 0, equal: 0 }]));
  for (const needle of cases) {
    for (const { variant, correct, given } of await runNeedle(host, text, { needle, variants: VARIANTS, stop })) {
      const key = `${needle.id} ${variant}`;
      if (slices.length === 1) alone.set(key, given);
      const count = counts.get(variant);
      if (count === undefined) continue;
      if (correct) count.right++;
      if (given === alone.get(key)) count.equal++;
      else print(`${slices.join("+")} ${key}: ${given} instead of ${alone.get(key)}`);
    }
  }
  for (const [name, { right, equal }] of counts) {
    print(`| ${slices.join(" + ")} | ${name} | ${right}/${cases.length} | ${equal}/${cases.length} |`);
  }
  await group.close();
}
