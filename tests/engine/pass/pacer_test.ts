/** When a long pass yields, on a GPU that takes as long as the test says. */

import assert from "node:assert/strict";

import { SlicePacer } from "../../../engine/pass/pacer.ts";

/** A queue that is as slow as the test says; its time passes only while it is waited for. */
class SlowQueue {
  readonly pacer = new SlicePacer(() => this.#now);
  submits = 0;
  #now = 1000;
  #layers = 0;
  #msPerLayer = 0;
  readonly #slices: number[] = [];

  readonly gpu = {
    settle: (): Promise<void> => {
      this.#now += this.#layers * this.#msPerLayer;
      this.#slices.push(this.#layers);
      this.#layers = 0;
      return Promise.resolve();
    },
  };

  submit(): void {
    this.submits++;
  }

  /** Runs a pass and says after how many layers each it stopped. */
  async pass({ rows, layers, msPerLayer }: Readonly<Record<"rows" | "layers" | "msPerLayer", number>>) {
    this.#msPerLayer = msPerLayer;
    this.#slices.length = this.#layers = 0;
    this.pacer.begin(rows);
    for (let layer = 0; layer < layers; layer++) {
      this.#layers++;
      await this.pacer.afterLayer(this);
    }
    return [...this.#slices];
  }
}

Deno.test("SlicePacer.afterLayer() starts with one layer and then takes as many as fit into 50 ms", async () => {
  const queue = new SlowQueue();
  assert.deepEqual(await queue.pass({ rows: 8, layers: 12, msPerLayer: 10 }), [1, 5, 5]);
  assert.equal(queue.submits, 3);
});

Deno.test("SlicePacer.begin() makes slices shorter when a pass has more rows than the last", async () => {
  const queue = new SlowQueue();
  await queue.pass({ rows: 10, layers: 8, msPerLayer: 5 });
  assert.deepEqual(await queue.pass({ rows: 20, layers: 10, msPerLayer: 10 }), [5, 5]);
  assert.deepEqual(await queue.pass({ rows: 400, layers: 3, msPerLayer: 200 }), [1, 1, 1]);
});

Deno.test("SlicePacer.afterLayer() does not stop at all when everything is quick", async () => {
  const queue = new SlowQueue();
  await queue.pass({ rows: 4, layers: 4, msPerLayer: 0.1 });
  assert.deepEqual(await queue.pass({ rows: 4, layers: 100, msPerLayer: 0.1 }), []);
});
