/**
 * `calibrate`: finds a model's select layers by needle tasks and writes `tidepool.json` beside it.
 * Knows files and flags; `engine/evaluation/calibrate.ts` compares candidates.
 */

import { scoreCandidates } from "../../engine/evaluation/calibrate.ts";
import { writeCalibration } from "../../engine/model/calibration.ts";
import { besideModel } from "../../engine/model/checkpoint.ts";
import { Engine } from "../../engine/engine.ts";
import { loadTextModel, parseNeedles } from "../../engine/evaluation/needles.ts";
import { MIN_BUDGET } from "../../engine/layer_plan.ts";
import type { Command, FlagValues } from "../command.ts";
import { UsageError } from "../errors.ts";
import { EMBEDDED_MODEL, modelSource, QUANTIZE_FLAG, withLocalModel } from "../model_choice.ts";
import { GPU_FLAG } from "../host/worker_config.ts";
import type { Terminal } from "../terminal.ts";
import { ensureVulkanDriver } from "../host/vulkan_driver.ts";
import { EVALUATION_DATA } from "./eval/evaluation_data.ts";

const flags = {
  model: {
    kind: "text",
    value: "DIR",
    default: EMBEDDED_MODEL,
    shownDefault: "the embedded tide-10m",
    help: "model directory, or a .gguf file",
  },
  ...QUANTIZE_FLAG,
  needles: {
    kind: "text",
    value: "FILE",
    default: `${EVALUATION_DATA}/needles.jsonl`,
    shownDefault: "the embedded model's",
    help: "cases: JSON lines with id, prompt_text, question, answer",
  },
  cases: { kind: "integer", min: 1, max: 10000, default: 20, help: "number of cases to use" },
  longest: {
    kind: "integer",
    min: 64,
    max: 2 ** 20,
    default: 2500,
    help: "longest text to use, in tokens, counted as characters ÷ 3",
  },
  probe: {
    kind: "integer",
    min: MIN_BUDGET,
    max: 4096,
    default: 32,
    help: "budget at which candidate layers are compared",
  },
  budget: {
    kind: "integer",
    min: MIN_BUDGET,
    max: 2 ** 20,
    default: 256,
    help: "default budget to write into tidepool.json",
  },
  sparseFrom: {
    kind: "integer",
    min: 0,
    max: 2 ** 24,
    default: 1024,
    help: "context in tokens from which mode auto is sparse, to write into tidepool.json",
  },
  ...GPU_FLAG,
  dryRun: { kind: "switch", help: "print the scores, write nothing" },
} as const;

export const command: Command<typeof flags> = {
  summary: "Find a model's select layers by needle tasks and write tidepool.json beside it",
  flags,
  async run(given: FlagValues<typeof flags>, terminal: Terminal): Promise<number> {
    const values = await withLocalModel(given, (fraction) => terminal.progress("Fetching the model", fraction));
    await ensureVulkanDriver((line) => terminal.error(line));
    const cases = parseNeedles(await Deno.readTextFile(values.needles))
      .filter(({ text }) => text.length <= values.longest * 3)
      .slice(0, values.cases);
    if (cases.length === 0) throw new UsageError(`Cannot calibrate: ${values.needles} has no case within --longest`);
    const text = await loadTextModel(values.model);
    const engine = await Engine.open({ model: modelSource(values), kvTokens: "auto", gpu: values.gpu });
    try {
      const stop = engine.config.eosTokens[0];
      if (stop === undefined) throw new UsageError("Cannot calibrate: the model names no end-of-turn token");
      const scores = await scoreCandidates(engine, text, {
        needles: cases,
        budget: values.probe,
        stop,
        onProgress: (done, total) => terminal.progress("needles", done / total),
      });
      terminal.line("select layers   right     log-probability of the answer");
      for (const { selectLayers, accuracy, logprob } of scores) {
        const name = `{${selectLayers.join(", ")}}`.padEnd(14);
        terminal.line(`${name} ${`${(100 * accuracy).toFixed(0)} %`.padStart(6)}  ${logprob.toFixed(3).padStart(8)}`);
      }
      const best = scores[0];
      if (best === undefined || values.dryRun) return 0;
      const calibration = { selectLayers: best.selectLayers, budget: values.budget, sparseFrom: values.sparseFrom };
      await writeCalibration(values.model, calibration, {
        adapter: engine.info.adapter,
        cases: cases.length,
        probe: values.probe,
        scores: scores.slice(0, 4),
      });
      terminal.line(
        `Wrote ${besideModel(values.model, "tidepool.json")}: select layers {${best.selectLayers.join(", ")}}`,
      );
      return 0;
    } finally {
      await engine.close();
    }
  },
};
