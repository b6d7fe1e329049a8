/**
 * A service as its owner sees it: started with a configuration, ready some time later, and ended.
 * Knows what an owner needs; how the parts work together is the business of `running_service.ts`.
 */

import { Tokenizer } from "../engine/text/tokenizer.ts";
import { EMBEDDED_MODEL, resolveConfig, type ServiceConfig } from "./config.ts";
import { RunningService } from "./running_service.ts";
import { TextThread } from "./text_thread.ts";
import { planWorkers } from "./worker_plan.ts";

/**
 * What a service tells while it runs.
 *
 * @example
 * ```ts
 * const lines: string[] = [];
 * const options: ServiceOptions = { log: (line) => lines.push(line) };
 * ```
 */
export interface ServiceOptions {
  /** Log lines: one for each finished request, and what goes wrong. @default nobody listens */
  readonly log?: (line: string) => void;
  /** Share of the weights that is loaded, 0 to 1. @default nobody listens */
  readonly onProgress?: (fraction: number) => void;
}

/**
 * The model that a service serves.
 *
 * @example
 * ```ts
 * function describe({ id, kvTokens }: ServedModel): string {
 *   return `${id}, ${kvTokens} tokens of KV cache`;
 * }
 * ```
 */
export interface ServedModel {
  /** Name under which clients ask for it. */
  readonly id: string;
  /** Number of weights. */
  readonly parameters: number;
  /** KV capacity in tokens, over all workers and sequences. */
  readonly kvTokens: number;
  /** Longest context of one request, over all workers. */
  readonly contextTokens: number;
  /** The first worker's GPU by its own name. */
  readonly adapter: string;
  /** Whether the adapter computes on the CPU. */
  readonly software: boolean;
  /** In the order of the group; the first one samples. */
  readonly workers: readonly ServedWorker[];
}

/**
 * A worker of the group that serves a model.
 *
 * @example
 * ```ts
 * function smallest(workers: readonly ServedWorker[]): number {
 *   return Math.min(...workers.map(({ kvTokens }) => kvTokens));
 * }
 * ```
 */
export interface ServedWorker {
  /** Its GPU by its own name. */
  readonly adapter: string;
  /** KV capacity of its slice in tokens. */
  readonly kvTokens: number;
  /** The GPU among those of this host, or the address of a joined worker; absent when there is nothing to tell apart. */
  readonly place?: string;
}

/**
 * A running service; `drain` or `close` must be called.
 *
 * @example
 * ```ts
 * async function modelsOf({ address }: Service): Promise<unknown> {
 *   const response = await fetch(`http://${address.hostname}:${address.port}/v1/models`);
 *   return await response.json();
 * }
 * ```
 */
export interface Service {
  /** Where it listens. */
  readonly address: Deno.NetAddr;
  /** Resolves when the model is served for the first time; rejects when its worker fails for good before. */
  readonly ready: Promise<ServedModel>;
  /** Resolves with the reason when the worker has failed for good; pending otherwise. */
  readonly broken: Promise<string>;
  /** Takes nothing new, lets running answers finish within the configured time, then closes. */
  drain(): Promise<void>;
  /** Ends everything now; running answers end with an error event. No process is left when this returns. */
  close(): Promise<void>;
}

/**
 * Starts a service. It listens at once, unready while the model loads.
 *
 * @throws {CodedError} `invalid_request` for a bad configuration or an address that is taken, `invalid_model` or
 * `unsupported_model` when the model's text side is at fault; what else is wrong with the model, `ready` tells
 *
 * @example
 * ```ts
 * const service = await startService({ port: 0, random: "tiny", kvTokens: 1024 });
 * try {
 *   const model = await service.ready;
 *   const response = await fetch(`http://127.0.0.1:${service.address.port}/v1/completions`, {
 *     method: "POST",
 *     body: JSON.stringify({ model: model.id, prompt: [10, 20, 30], max_tokens: 2, ignore_eos: true }),
 *   });
 *   const { usage } = await response.json();
 *   if (usage.completion_tokens !== 2) throw new Error("Expected two tokens");
 * } finally {
 *   await service.close();
 * }
 * ```
 */
export async function startService(config: ServiceConfig = {}, options: ServiceOptions = {}): Promise<Service> {
  const resolved = resolveConfig(config);
  const workers = await planWorkers(resolved);
  // Random weights have no words of their own.
  const directory = "directory" in resolved.model ? resolved.model.directory : EMBEDDED_MODEL;
  const tokenizer = await Tokenizer.load(directory);
  const text = await TextThread.start({ directory });
  try {
    return new RunningService({ config: resolved, workers, text, tokenizer }, options);
  } catch (error) {
    text.close();
    throw error;
  }
}
