/**
 * A real worker that fails on demand: `deno run -A tests/support/faulty_worker.ts worker --spawned --plan=FILE`. Once the
 * file holds a plan, the worker says so at the point that is named, removes the file and fails. The test that breaks its
 * connections meanwhile has some time. Knows points of a step; the engine and the protocol are the real ones.
 */

import { Engine } from "../../engine/engine.ts";
import type { Candidates, Exchange, ReadyStates } from "../../engine/exchange.ts";
import type { Step, StepResult } from "../../engine/span.ts";
import { hostEngine, type WorkerEngine } from "../../workers/engine_host.ts";
import type { GroupPlace } from "../../engine/group_place.ts";
import { runWorker } from "../../workers/worker.ts";

/** Where a worker may fail. */
export const POINTS = [
  "load",
  "prefill",
  "keys travel",
  "select layer",
  "rows travel",
  "sparse layer",
  "sampling",
  "release",
] as const;
export type Point = (typeof POINTS)[number];

/**
 * How: `cut` and `corrupt` are done to its connections from outside; `behind` has its account of replicas differ from that
 * of the others, which only select layers can.
 */
export const FAULTS = ["kill", "stop", "cut", "corrupt", "behind"] as const;
export type Fault = (typeof FAULTS)[number];

/** What the file holds. */
export interface FaultPlan {
  readonly point: Point;
  readonly fault: Fault;
}

/** What the worker prints when it fails. */
export const FAULT_LINE = "Here I fail";

/** For the reader of the line, which breaks a connection. */
const BREAK_MS = 150;

/** Fails once when the plan says so; undefined when it does not, so that nothing is delayed. */
class Saboteur {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  at(point: Point): Promise<void> | undefined {
    const { plan } = this;
    if (plan?.point !== point) return undefined;
    Deno.removeSync(this.#path);
    Deno.stderr.writeSync(new TextEncoder().encode(`${FAULT_LINE}\n`));
    if (plan.fault === "kill") Deno.kill(Deno.pid, "SIGKILL");
    if (plan.fault === "stop") Deno.kill(Deno.pid, "SIGSTOP");
    return new Promise((resolve) => setTimeout(resolve, BREAK_MS));
  }

  get plan(): FaultPlan | undefined {
    try {
      return JSON.parse(Deno.readTextFileSync(this.#path));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  }
}

/** Candidates of a worker whose replicas are others than those of its peers. */
function behind({ rows, lists }: Candidates): Candidates {
  return { lists, rows: rows.map(({ replicas = 0, ...row }) => ({ ...row, replicas: replicas + 1 })) };
}

/** An engine that passes the saboteur at every point. */
class FaultyEngine implements WorkerEngine {
  readonly info: WorkerEngine["info"];
  readonly #engine: WorkerEngine;
  readonly #saboteur: Saboteur;
  readonly #copies: boolean;
  #isSparse = false;

  /** @param copies whether sequences are copied, so that only keys travel; without copies every other kind of exchange happens */
  constructor(engine: WorkerEngine, saboteur: Saboteur, copies: boolean) {
    this.#copies = copies;
    this.info = engine.info;
    this.#engine = engine;
    this.#saboteur = saboteur;
  }

  join({ exchange, ...place }: GroupPlace): void {
    this.#engine.join({ ...place, alike: this.#copies, exchange: this.#faulty(exchange) });
  }

  async run(step: Step): Promise<StepResult> {
    if (step.release.length > 0) await this.#saboteur.at("release");
    this.#isSparse = step.spans.some((span) => span.kind === "decode" && span.attention === "sparse");
    const result = await this.#engine.run(step);
    if (step.spans.some(({ kind }) => kind === "decode")) await this.#saboteur.at("sampling");
    return result;
  }

  close(): Promise<void> {
    return this.#engine.close();
  }

  #faulty(exchange: Exchange): Exchange {
    const pass = <T>(point: Point, go: () => Promise<T> | undefined) => this.#saboteur.at(point)?.then(go) ?? go();
    return {
      queries: (...given) => pass("prefill", () => exchange.queries(...given)),
      keys: (...given) => pass("keys travel", () => exchange.keys(...given)),
      sendKeys: (...given) => exchange.sendKeys(...given),
      tokens: (...given) => exchange.tokens(...given),
      waitedForKeys: (ms) => exchange.waitedForKeys(ms),
      states: (point, ...given) => {
        const ready = exchange.states(point, ...given);
        const isSparse = this.#isSparse && this.info.roles?.[point.layer] === "sparse";
        return ready && isSparse ? this.#faultyStates(ready) : ready;
      },
      replicas: (...given) => pass("rows travel", () => exchange.replicas(...given)),
      select: (...given) => {
        const [point, candidates] = given;
        const isBehind = this.#saboteur.plan?.fault === "behind";
        const go = () => exchange.select(point, isBehind ? async () => behind(await candidates()) : candidates);
        return this.#saboteur.at("select layer")?.then(async () => await go() ?? []) ?? go();
      },
      gatherOnLead: (...given) => exchange.gatherOnLead(...given),
    };
  }

  #faultyStates(ready: ReadyStates): ReadyStates {
    return {
      begin: () => {
        const arriving = ready.begin();
        return {
          arrive: async () => {
            await this.#saboteur.at("sparse layer");
            await arriving.arrive();
          },
        };
      },
    };
  }
}

if (import.meta.main) {
  const path = Deno.args.find((arg) => arg.startsWith("--plan="))?.slice("--plan=".length) ?? "";
  const saboteur = new Saboteur(path);
  const code = await runWorker({
    async open(load, onProgress) {
      await saboteur.at("load");
      const { engine, ...hosted } = hostEngine(await Engine.open(load, onProgress));
      return { ...hosted, engine: new FaultyEngine(engine, saboteur, Deno.args.includes("--copies")) };
    },
    spawned: Deno.args.includes("--spawned"),
    silenceMs: 5000,
    log: (line) => Deno.stderr.writeSync(new TextEncoder().encode(`${line}\n`)),
  });
  Deno.exit(code);
}
