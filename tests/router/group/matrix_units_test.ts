/** Whether a group computes on matrix units is decided for all of its workers at once, whenever it is formed. */

import assert from "node:assert/strict";
import { MODELS } from "../../support/fake_engine.ts";
import { withGroup } from "../../support/group_stage.ts";
import { until } from "../../support/until.ts";

Deno.test("WorkerGroup uses matrix units when all of its workers have them", async () => {
  await withGroup(async ({ group, log, ready }) => {
    await ready(1);
    await until(() => log.filter((line) => line === "matrix units are used").length === 2);
    assert.equal(group.state.kind === "ready" ? group.state.model.matrix : undefined, "16×16×16 f16→f32");
    assert.ok(!log.some((line) => line.includes("unused")));
  }, { models: [MODELS.matrices, MODELS.matrices] });
});

Deno.test("WorkerGroup leaves matrix units unused when one worker has none, and says whose", async () => {
  await withGroup(async ({ group, log, ready }) => {
    await ready(1);
    await until(() => log.includes("matrix units are left unused"));
    assert.equal(group.state.kind === "ready" ? group.state.model.matrix : "none", undefined);
    const said = log.filter((line) => line.startsWith("The group leaves"));
    assert.deepEqual(said, [
      "The group leaves its matrix units unused: worker 1 (fake, deno) has none, and all workers must compute alike",
    ]);
  }, { models: [MODELS.matrices, MODELS.fine] });
});
