/** A service as its owner sees it: started with a configuration, ready some time later, and ended. */

/**
 * What a service reports while it runs.
 *
 * @example
 * ```ts
 * const lines: string[] = [];
 * const options: ServiceOptions = { log: (line) => lines.push(line) };
 * ```
 */
export interface ServiceOptions {
  /** Log lines: one for each finished request, and what goes wrong. @default not reported */
  readonly log?: (line: string) => void;
  /** Share of the weights that is loaded, 0 to 1. @default not reported */
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
  /** KV capacity in tokens, over all groups, workers and sequences. */
  readonly kvTokens: number;
  /** Longest context of one request, over all workers of a group. */
  readonly contextTokens: number;
  /** Longest context of which every worker of a group has room for a copy; absent where nothing is copied. */
  readonly copiedContextTokens?: number;
  /** The first worker's GPU by its own name. */
  readonly adapter: string;
  /** Whether the adapter computes on the CPU. */
  readonly software: boolean;
  /** In the order of the groups, and within each of its workers; the first of a group draws its tokens. */
  readonly workers: readonly ServedWorker[];
}

/**
 * A worker of a group that serves a model.
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
  /** That it belongs to, from 0; absent when there is only one. */
  readonly group?: number;
  /** The GPU among those of this host, or the address of a joined worker; absent when there is only one place. */
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
  /** Where it listens; HTTPS when a certificate was configured. */
  readonly address: Deno.NetAddr;
  /** Resolves when the model is served for the first time; rejects when its workers fail for good, or the service ends, before. */
  readonly ready: Promise<ServedModel>;
  /** Resolves with the reason when the workers of all groups have failed for good; pending otherwise. */
  readonly broken: Promise<string>;
  /** Takes nothing new, lets running answers finish within the configured time, then closes. */
  drain(): Promise<void>;
  /** Ends everything now; running answers end with an error event. No process is left when this returns. */
  close(): Promise<void>;
}
