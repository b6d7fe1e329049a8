/** What stands in place of a model's file: nothing, a directory, a pipe, a device, far too much, and numbers that are none. */

import assert from "node:assert/strict";

import { Gpu } from "../../../kernels/gpu.ts";
import { Commands } from "../../../kernels/pipeline.ts";
import { JsonObject } from "../../../engine/model/json_file.ts";
import { readModelConfig } from "../../../engine/model/model_config.ts";
import { readModelFile } from "../../../engine/model/model_file.ts";
import { openSafetensors } from "../../../engine/model/safetensors.ts";
import { loadWeights } from "../../../engine/model/weights.ts";
import { FIXTURES, readFixture, withChangedFixture, withFiles } from "../../support/model_directory.ts";

const LITTLE_ENDIAN = true;

const invalid = (message: RegExp) => ({ name: "EngineError", code: "invalid_model", message });

/** Puts something in place of `name`. */
const PLACES: readonly (readonly [found: RegExp, put: (path: string) => Promise<unknown>])[] = [
  [/expected a regular file, found a directory$/, (path) => Deno.mkdir(path)],
  [/expected a regular file, found a named pipe$/, (path) => new Deno.Command("mkfifo", { args: [path] }).output()],
  [/expected a regular file, found a device$/, (path) => Deno.symlink("/dev/zero", path)],
  [/no such file$/, (path) => Deno.symlink(`${path}-elsewhere`, path)],
];

for (const [found, put] of PLACES) {
  Deno.test(`model files: ${found.source}`, async () => {
    await withFiles({}, async (directory) => {
      await put(`${directory}/config.json`);
      await put(`${directory}/model-1.safetensors`);
      await Deno.writeTextFile(
        `${directory}/model.safetensors.index.json`,
        JSON.stringify({ "weight_map": { a: "model-1.safetensors" } }),
      );
      await assert.rejects(readModelConfig(directory), invalid(new RegExp(`config\\.json: ${found.source}`)));
      await assert.rejects(openSafetensors(directory), invalid(new RegExp(`model-1\\.safetensors: ${found.source}`)));
    });
  });
}

Deno.test("readModelFile() follows links, and reads as much as there is", async () => {
  await withFiles({ real: "12345", empty: "" }, async (directory) => {
    await Deno.symlink(`${directory}/real`, `${directory}/link`);
    assert.equal(new TextDecoder().decode(await readModelFile(`${directory}/link`, 5)), "12345");
    assert.equal((await readModelFile(`${directory}/empty`, 5)).length, 0);
    await assert.rejects(readModelFile(`${directory}/real`, 4), invalid(/real: expected at most 4 bytes, found 5$/));
  });
  // Its size is 0 until it is read.
  assert.ok((await readModelFile("/proc/self/status", 1 << 20)).length > 100);
  await assert.rejects(readModelFile("/proc/self/status", 100), invalid(/expected at most 100 bytes, found \d+$/));
});

Deno.test("JSON files beyond a sane size are refused unread", async () => {
  await withFiles({ "config.json": "{}" }, async (directory) => {
    // Sparse: it takes no space, and no time unless it is read.
    await Deno.truncate(`${directory}/config.json`, 2 ** 40);
    await assert.rejects(
      JsonObject.read(`${directory}/config.json`),
      invalid(/config\.json: expected at most 16777216 bytes, found 1099511627776$/),
    );
  });
});

/** Loads the weights of a changed fixture on a GPU. */
async function load(fixture: string, changes: Parameters<typeof withChangedFixture>[1]): Promise<void> {
  const gpu = await Gpu.open();
  try {
    await withChangedFixture(fixture, changes, async (directory) => {
      using files = await openSafetensors(directory);
      await loadWeights(new Commands(gpu), await readModelConfig(directory), { files, onProgress: () => {} });
    });
  } finally {
    await gpu.close();
  }
}

/** A fixture's weights with one number of a tensor replaced. */
async function spoiltWeights(fixture: string, { tensor, at, bytes }: Spoilt): Promise<Uint8Array> {
  const file = await Deno.readFile(`${FIXTURES}${fixture}/model.safetensors`);
  const headerBytes = new DataView(file.buffer).getUint32(0, LITTLE_ENDIAN);
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + headerBytes)));
  const start = 8 + headerBytes + header[tensor]["data_offsets"][0];
  file.set(bytes, start + at * bytes.length);
  return file;
}

interface Spoilt {
  readonly tensor: string;
  readonly at: number;
  readonly bytes: readonly number[];
}

const DOWN = "model.layers.1.mlp.down_proj.weight";

Deno.test("loadWeights() refuses numbers that are not finite, with file, tensor and place", async (t) => {
  const cases = [
    ["F16", "llama", { tensor: DOWN, at: 161, bytes: [0x00, 0x7e] }, "NaN", "finite numbers up to 65504"],
    ["F16", "llama", { tensor: DOWN, at: 160, bytes: [0x00, 0xfc] }, "-Infinity", "finite numbers up to 65504"],
    ["F16", "llama", { tensor: "model.norm.weight", at: 3, bytes: [0x01, 0x7c] }, "NaN", "finite numbers"],
  ] as const;
  const { dtype, cols } = await shapeOf("llama", DOWN);
  assert.equal(dtype, "F16");
  for (const [type, fixture, spoilt, found, expected] of cases) {
    await t.step(`${type} ${found} in ${spoilt.tensor}`, async () => {
      const place = spoilt.tensor === DOWN
        ? `\\[${Math.floor(spoilt.at / cols)}, ${spoilt.at % cols}\\]`
        : `\\[0, ${spoilt.at}\\]`;
      const message = new RegExp(
        `/model\\.safetensors: tensor ${spoilt.tensor}: expected ${expected}, found ${found} at ${place}$`,
      );
      const weights = await spoiltWeights(fixture, spoilt);
      await assert.rejects(load(fixture, { "model.safetensors": weights }), invalid(message));
    });
  }
});

async function shapeOf(fixture: string, tensor: string): Promise<{ dtype: string | undefined; cols: number }> {
  using files = await openSafetensors(`${FIXTURES}${fixture}`);
  const info = files.tensors.get(tensor);
  return { dtype: info?.dtype, cols: info?.shape[1] ?? 0 };
}

Deno.test("loadWeights() refuses files with more layers than the configuration", async () => {
  const config = await readFixture<{ "num_hidden_layers": number }>("llama/config.json");
  const fewer = { ...config, "num_hidden_layers": config.num_hidden_layers - 1 };
  await assert.rejects(
    load("llama", { "config.json": fewer }),
    invalid(
      /model\.safetensors: tensor model\.layers\.\d+\..* num_hidden_layers of config\.json is \d+; expected at least/,
    ),
  );
});
