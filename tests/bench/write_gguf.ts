/**
 * `deno run -A tests/bench/write_gguf.ts --random SHAPE --types f16,q8_0 --out DIR`: files of random weights for `bench:peer --files DIR`,
 * each under its name once it is complete.
 */

import { parseArgs } from "node:util";
import { presetNamed } from "../../engine/model/presets.ts";
import { UsageError } from "../../router/errors.ts";
import { matrixTypeNamed } from "./peer_table.ts";
import { randomGguf } from "./random_gguf.ts";

const { values: { random, types, out } } = parseArgs({
  options: {
    random: { type: "string", default: "llama-3-8b" },
    types: { type: "string", default: "f16" },
    out: { type: "string" },
  },
});
if (out === undefined) throw new UsageError("Cannot write files of random weights: needs --out DIR");
const { config } = presetNamed(random);
for (const type of types.split(",").map(matrixTypeNamed)) await randomGguf(out, { shape: random, config, type });
