/** The group of real workers around real engines, one and two of them, and the fake that the scheduler is tested on. */

import { EngineWorkers } from "../support/engine_workers.ts";
import { FakeGroup } from "../support/fake_group.ts";
import { groupContract } from "./group_contract.ts";

for (const slices of [[1024], [1024, 512]]) {
  groupContract(`WorkerGroup of ${slices.join(" + ")} tokens`, () => Promise.resolve(new EngineWorkers(slices)));
}

for (
  const [name, options] of [["one worker", { stepsInFlight: 2 }], ["two", { model: { slices: [16, 8] } }]] as const
) {
  groupContract(`FakeGroup of ${name}`, () => {
    const group = new FakeGroup(options);
    const loseNextStep = () => {
      group.hold();
      setTimeout(() => {
        group.break();
        setTimeout(() => group.recover(), 5);
      }, 5);
    };
    return Promise.resolve({ group, loseNextStep, close: () => Promise.resolve() });
  });
}
