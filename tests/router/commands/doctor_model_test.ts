import assert from "node:assert/strict";

import { describeModel, diagnoseModel, type ModelDiagnosis } from "../../../router/commands/doctor_model.ts";
import { FIXTURES, TIDE } from "../../support/model_directory.ts";

Deno.test("diagnoseModel() says what a model is, what it needs and what it lacks", async () => {
  const found = await diagnoseModel(`${FIXTURES}gguf/tiny-llama-k-Q4_K_M.gguf`, undefined);
  assert.equal(found.family, "llama");
  assert.deepEqual(found.types, { Q6_K: 3, F32: 5, Q4_K: 12 });
  assert.ok(found.hasChatTemplate);
  assert.deepEqual(found.missing, ["a calibration (tidepool.json): every token attends densely"]);
  const lines = describeModel(found).map(([name, value]) => `${name}: ${value}`);
  assert.ok(lines.includes("Tensors: 3 × Q6_K, 5 × F32, 12 × Q4_K"), lines.join("\n"));
  assert.ok(lines.includes("Select layers: none: not calibrated"), lines.join("\n"));
});

Deno.test("diagnoseModel() says which layers have a window, and that such a model has no sparse attention", async () => {
  const found = await diagnoseModel(`${FIXTURES}gemma3`, undefined);
  assert.deepEqual(found.missing, [
    "sparse attention, as only some layers have a window: every token attends densely",
  ]);
  const lines = describeModel(found).map(([name, value]) => `${name}: ${value}`);
  assert.ok(lines.includes("Window: 40 positions in 6 of 7 layers"), lines.join("\n"));
});

Deno.test("diagnoseModel() finds how a model writes tool calls", async () => {
  const calls = (found: ModelDiagnosis) => describeModel(found).find(([name]) => name === "Tool calls")?.[1] ?? "";
  assert.match(calls(await diagnoseModel(TIDE, undefined)), /no place for tools: they are described .* Hermes' form/);
  const directory = await Deno.makeTempDir();
  try {
    for (const name of ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]) {
      await Deno.symlink(`${FIXTURES}llama/${name}`, `${directory}/${name}`);
    }
    await Deno.writeTextFile(`${directory}/chat_template.jinja`, "{% for tool in tools %}[TOOL_CALLS]{% endfor %}");
    assert.equal(calls(await diagnoseModel(directory, undefined)), "mistral");
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("diagnoseModel() foresees what quantising saves", async () => {
  const [plain, four] = [await diagnoseModel(TIDE, undefined), await diagnoseModel(TIDE, "q4")];
  assert.deepEqual(plain.selectLayers, [2, 6]);
  assert.deepEqual(plain.missing, []);
  assert.ok(four.weightBytes < 0.45 * plain.weightBytes);
});
