/** What is accepted as `tidepool.json`, and that writing and reading agree. */

import assert from "node:assert/strict";

import { readCalibration, writeCalibration } from "../../../engine/model/calibration.ts";
import { withFiles } from "../../support/model_directory.ts";

const SOUND = { version: 1, "select_layers": [2, 6], budget: 256, "sparse_from": 1024 };

Deno.test("readCalibration() is undefined without a file", async () => {
  await withFiles({}, async (directory) => assert.equal(await readCalibration(directory, 12), undefined));
});

Deno.test("readCalibration() gives back what writeCalibration() wrote, and nothing else stays", async () => {
  await withFiles({ "tidepool.json": SOUND }, async (directory) => {
    const calibration = { selectLayers: [1, 5, 9], budget: 64, sparseFrom: 0 };
    await writeCalibration(directory, calibration, { accuracy: 0.98, version: 7 });
    assert.deepEqual(await readCalibration(directory, 12), calibration);
    const names = (await Array.fromAsync(Deno.readDir(directory))).map(({ name }) => name);
    assert.deepEqual(names, ["tidepool.json"]);
  });
});

Deno.test("writeCalibration() says which file it could not write", async () => {
  await assert.rejects(
    writeCalibration("/nowhere", { selectLayers: [2], budget: 64, sparseFrom: 0 }, {}),
    { code: "invalid_model", message: /^Cannot write \/nowhere\/tidepool\.json: / },
  );
});

const BROKEN: readonly (readonly [change: Record<string, unknown>, message: RegExp])[] = [
  [{ version: 2 }, /version must be an integer from 1 to 1, given 2/],
  [{ "select_layers": "2,6" }, /select_layers must be a list, given "2,6"/],
  [{ "select_layers": null }, /select_layers must be a list of layers, given nothing/],
  [{ "select_layers": [] }, /no select layer is given/],
  [{ "select_layers": [0, 6] }, /select layer 0 must be an integer above 0/],
  [{ "select_layers": [6, 2] }, /select layer 2 must be an integer above 6/],
  [{ "select_layers": [2, 11] }, /select layer 11 must be an integer above 2 and below 11/],
  [{ "select_layers": [2.5] }, /select layer 2\.5 must be an integer/],
  [{ "select_layers": [2, "6"] }, /select_layers must be a list of layers/],
  [{ budget: 15 }, /budget must be an integer from 16 to \d+, given 15/],
  [{ "sparse_from": -1 }, /sparse_from must be an integer from 0/],
];

for (const [change, message] of BROKEN) {
  Deno.test(`readCalibration() refuses ${JSON.stringify(change)}`, async () => {
    await withFiles({ "tidepool.json": { ...SOUND, ...change } }, async (directory) => {
      await assert.rejects(readCalibration(directory, 12), { code: "invalid_model", message });
    });
  });
}
