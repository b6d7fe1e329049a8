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

Deno.test("SlicePacer.afterLayer() starts with one layer, and takes as many as fit into 50 ms once a slice was measured", async () => {
  const queue = new SlowQueue();
  // The second slice is submitted before the first is known.
  assert.deepEqual(await queue.pass({ rows: 8, layers: 12, msPerLayer: 10 }), [1, 1, 5, 5]);
  assert.equal(queue.submits, 4);
});

Deno.test("SlicePacer.afterLayer() submits a slice before it waits for the one before, and for no other", async () => {
  const pacer = new SlicePacer();
  const events: string[] = [];
  const dones = Array.from({ length: 3 }, () => Promise.withResolvers<void>());
  let slices = 0;
  const commands = {
    submit: () => void events.push(`submit ${slices}`),
    gpu: { settle: () => dones[slices++]?.promise ?? Promise.resolve() },
  };
  pacer.begin(1000);
  await pacer.afterLayer(commands);
  const second = pacer.afterLayer(commands).then(() => events.push("second goes on"));
  assert.deepEqual(events, ["submit 0", "submit 1"]);
  events.push("first done");
  dones[0]?.resolve();
  await second;
  assert.deepEqual(events.slice(2), ["first done", "second goes on"]);
});

Deno.test("SlicePacer.afterLayer() throws what went wrong in the slice that it waits for", async () => {
  const pacer = new SlicePacer();
  const commands = { submit: () => {}, gpu: { settle: () => Promise.reject(new Error("the GPU was lost")) } };
  pacer.begin(1000);
  await pacer.afterLayer(commands);
  await assert.rejects(pacer.afterLayer(commands), /the GPU was lost/);
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
