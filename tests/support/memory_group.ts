/**
 * A group of engines in one process whose exchange is plain memory: what the sharded arithmetic is tested with, without
 * sockets. Every worker has a device and a slice of its own.
 */

import { Engine, type EngineOptions } from "../../engine/engine.ts";
import type { SparseExchange } from "../../engine/replica_plan.ts";
import { PageMap } from "../../engine/page_map.ts";
import type { SessionRunner } from "../../engine/evaluation/hand_session.ts";
import type { Step, StepResult } from "../../engine/span.ts";
import type { EnginePool } from "./engine_pool.ts";
import { type ExchangeCount, type MemoryExchange, memoryExchanges } from "./memory_exchange.ts";
import { testProvider } from "./test_provider.ts";

/** What a group agrees on when it forms. */
interface JoinOptions {
  readonly sparseExchange?: SparseExchange;
  readonly replicaPages?: number;
  /** False: nothing is copied, and all is exchanged. */
  readonly alike?: boolean;
}

/** Runs steps on several engines at once, as a router would. */
export class MemoryGroup implements SessionRunner {
  readonly engines: readonly Engine[];
  readonly count: ExchangeCount;
  readonly info: SessionRunner["info"];
  readonly #exchanges: readonly MemoryExchange[];
  readonly #letGo: (engine: Engine) => void | Promise<void>;

  private constructor(
    engines: readonly Engine[],
    letGo: (engine: Engine) => void | Promise<void>,
    options: JoinOptions,
  ) {
    const [lead] = engines;
    if (lead === undefined) throw new RangeError("Cannot open a group: no worker");
    this.engines = engines;
    this.#letGo = letGo;
    const slices = engines.map(({ info }) => info.kvPages);
    const map = new PageMap(slices);
    const replicaPages = Math.min(...engines.map(({ info }) => info.replicaPages));
    const { exchanges, count } = memoryExchanges(engines.map(({ commands }) => commands));
    for (const [index, exchange] of exchanges.entries()) {
      engines[index]?.join({ index, map, exchange, replicaPages, ...options });
    }
    this.count = count;
    this.#exchanges = exchanges;
    this.map = map;
    this.info = { ...lead.info, kvPages: map.pages };
  }

  readonly map: PageMap;

  /** @param kvTokens of each worker's slice */
  static async open(
    model: EngineOptions["model"],
    kvTokens: readonly number[],
    options: JoinOptions = {},
  ): Promise<MemoryGroup> {
    const engines: Engine[] = [];
    for (const tokens of kvTokens) {
      engines.push(
        await Engine.open({ model, kvTokens: tokens, replicas: kvTokens.length > 1, gpu: testProvider().name }),
      );
    }
    return new MemoryGroup(engines, (engine) => engine.close(), options);
  }

  /** A group of engines that go back to their pool. */
  static of(pool: EnginePool, kvTokens: readonly number[], options: JoinOptions = {}): MemoryGroup {
    return new MemoryGroup(kvTokens.map((tokens) => pool.take(tokens)), (engine) => pool.give(engine), options);
  }

  async run(step: Step): Promise<StepResult> {
    const results = await Promise.all(this.engines.map((engine) => engine.run(step)));
    const [first] = results;
    if (first === undefined) throw new RangeError("Cannot run a step: no worker");
    return first;
  }

  async close(): Promise<void> {
    for (const exchange of this.#exchanges) exchange.close();
    for (const engine of this.engines) await this.#letGo(engine);
  }
}
