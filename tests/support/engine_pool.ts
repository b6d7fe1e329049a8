/**
 * Engines for the groups of a test file, opened once: what an engine costs is mostly its kernels, and a group takes few steps.
 * Call `enginePool()` once, at the top of a test file.
 */

import { Engine, type ModelSource } from "../../engine/engine.ts";
import { settleMaps } from "./engine_fixture.ts";
import { testProvider } from "./test_provider.ts";

/** Lends engines to one group at a time. */
export class EnginePool {
  readonly #model: ModelSource;
  readonly #kvTokens: readonly number[];
  readonly #idle: { readonly engine: Engine; readonly kvTokens: number }[] = [];
  readonly #lent = new Map<Engine, number>();

  /** @param kvTokens of each engine's slice */
  constructor(model: ModelSource, kvTokens: readonly number[]) {
    this.#model = model;
    this.#kvTokens = kvTokens;
  }

  async open(): Promise<void> {
    for (const kvTokens of this.#kvTokens) {
      const engine = await Engine.open({ model: this.#model, kvTokens, replicas: true, gpu: testProvider().name });
      this.#idle.push({ engine, kvTokens });
    }
    await this.settle();
  }

  /** Waits until no read-back is pending any more. */
  async settle(): Promise<void> {
    for (const engine of [...this.#idle.map((idle) => idle.engine), ...this.#lent.keys()]) await settleMaps(engine);
  }

  /** An engine with a slice of that size; it remembers nothing once it joins a group. */
  take(kvTokens: number): Engine {
    const at = this.#idle.findIndex((idle) => idle.kvTokens === kvTokens);
    const [taken] = at < 0 ? [] : this.#idle.splice(at, 1);
    if (taken === undefined) throw new RangeError(`Cannot lend an engine of ${kvTokens} tokens: none is idle`);
    this.#lent.set(taken.engine, kvTokens);
    return taken.engine;
  }

  give(engine: Engine): void {
    const kvTokens = this.#lent.get(engine);
    if (kvTokens === undefined) throw new RangeError("Cannot take an engine back: it was not lent");
    this.#lent.delete(engine);
    this.#idle.push({ engine, kvTokens });
  }

  /** Those still lent as well: their test has failed. */
  async close(): Promise<void> {
    for (const engine of [...this.#idle.splice(0).map((idle) => idle.engine), ...this.#lent.keys()]) {
      await engine.close();
    }
    this.#lent.clear();
  }
}

/** Registers the hooks that open and close a pool around the tests of the calling file. */
export function enginePool(model: ModelSource, kvTokens: readonly number[]): EnginePool {
  const pool = new EnginePool(model, kvTokens);
  Deno.test.beforeAll(() => pool.open());
  // The op sanitizer reports pending maps.
  Deno.test.afterEach(() => pool.settle());
  Deno.test.afterAll(() => pool.close());
  return pool;
}
