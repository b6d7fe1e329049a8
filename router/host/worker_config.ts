/**
 * What an operator decides about the workers of a service: how many to start here or whom to join elsewhere, and how
 * much each holds. Knows names, defaults and bounds; starts no process.
 */

import { COPY_ROOMS, type CopyRoom } from "../../engine/kv/copy_plan.ts";
import { SPARSE_EXCHANGES, type SparseExchange } from "../../engine/replica_plan.ts";
import { PAGE_TOKENS } from "../../engine/span.ts";
import { GPU_CHOICES, type GpuChoice } from "../../kernels/choose_provider.ts";
import type { Address } from "../../workers/protocol.ts";
import { formatAddress } from "./address.ts";
import { type JoinSource, parseJoin } from "./join_source.ts";
import type { Flags } from "../command.ts";
import { UsageError } from "../errors.ts";

/** What an operator may say about workers; the fields of `ServiceConfig` of the same names. */
export interface WorkerChoice {
  readonly groups?: number | undefined;
  readonly workers?: number | "auto" | undefined;
  readonly shareGpu?: boolean | undefined;
  readonly gpu?: GpuChoice | undefined;
  readonly join?: readonly string[] | undefined;
  readonly minWorkers?: number | undefined;
  readonly secretFile?: string | undefined;
  readonly joinTlsCa?: string | undefined;
  readonly joinTlsName?: string | undefined;
  readonly kvTokens?: KvTokens | readonly KvTokens[] | undefined;
  readonly copies?: CopyRoom | undefined;
  readonly sparseExchange?: SparseExchange | undefined;
}

/** KV capacity of a worker in tokens; `auto` is what its GPU has. */
export type KvTokens = number | "auto";

/** Where the workers come from. */
export type WorkerOrigin =
  /** Processes of this host, which the router starts and ends, so many a group; `auto`: one for each GPU. */
  | { readonly kind: "spawn"; readonly count: number | "auto"; readonly shareGpu: boolean; readonly gpu: GpuChoice }
  /** Started elsewhere with `worker --listen`. */
  | {
    readonly kind: "join";
    readonly source: JoinSource;
    readonly minWorkers: number;
    readonly secretFile: string | undefined;
    /** Undefined: in clear text. */
    readonly tls?: { readonly ca: string; readonly name?: string };
  };

/** A `WorkerChoice` with nothing left open. */
export interface ResolvedWorkers {
  /** Groups that serve the model side by side. */
  readonly groups: number;
  /** Of each group, where they are counted. */
  readonly workers: WorkerOrigin;
  /** One for all workers, or one for each of a group. */
  readonly kvTokens: readonly KvTokens[];
  /** Room that workers have for copies of what the others of their group hold. */
  readonly copies: CopyRoom;
  readonly sparseExchange: SparseExchange;
}

const BOUNDS = {
  groups: { min: 1, max: 64 },
  workers: { min: 1, max: 64 },
  kvTokens: { min: PAGE_TOKENS, max: 2 ** 31 - 1 },
} as const;

/** The flag of every command that opens a GPU or starts workers that do. */
export const GPU_FLAG = {
  gpu: {
    kind: "choice",
    choices: GPU_CHOICES,
    default: "auto",
    help:
      "WebGPU implementation: Deno's own, or Dawn, an npm package of 51 MB that can use matrix units; auto: Dawn on cards that have them",
  },
} as const satisfies Flags;

/** Flags about the slice of each worker, for every command that starts some. */
export const SLICE_FLAGS = {
  kvTokens: {
    kind: "integers",
    ...BOUNDS.kvTokens,
    or: "auto",
    default: ["auto"],
    help: "KV capacity in tokens, one number for all workers or one for each; auto: what the GPU has left",
  },
  copies: {
    kind: "choice",
    choices: COPY_ROOMS,
    default: "auto",
    help:
      "room on each worker of a group for copies of what the others hold; auto: of one longest context; whole: of everything, so that the group holds what one worker would; least: an eighth",
  },
  shareGpu: { kind: "switch", help: "let several workers share one GPU" },
  sparseExchange: {
    kind: "choice",
    choices: SPARSE_EXCHANGES,
    default: "states",
    help:
      "what workers exchange in sparse layers: copies of the selected rows, attention states, or whichever costs less",
  },
  ...GPU_FLAG,
} as const satisfies Flags;

/** Flags of `serve` about workers. */
export const WORKER_FLAGS = {
  groups: {
    kind: "integer",
    ...BOUNDS.groups,
    help: "groups that serve the model side by side, each with the whole model: more requests at a time (default: 1)",
  },
  workers: {
    kind: "integer",
    ...BOUNDS.workers,
    or: "auto",
    help: "workers to start on this host for each group, one GPU each; auto: one for every GPU (default: 1)",
  },
  join: {
    kind: "text",
    value: "WHERE",
    help: "use workers started with worker --listen instead: HOST:PORT,… or dns:NAME:PORT, srv:NAME, nats://HOST/GROUP",
  },
  minWorkers: {
    kind: "integer",
    ...BOUNDS.workers,
    help: "fewest joined workers that form a group (default: 1)",
  },
  secretFile: { kind: "text", value: "FILE", help: "file whose first line is the secret shared with joined workers" },
  joinTlsCa: {
    kind: "text",
    value: "FILE",
    help: "certificates (PEM) to verify joined workers by, their issuer's or their own; turns TLS on",
  },
  joinTlsName: { kind: "text", value: "NAME", help: "name expected in their certificates (default: the host dialled)" },
  ...SLICE_FLAGS,
} as const satisfies Flags;

/**
 * Fills in what is left out and checks the rest.
 * @throws {UsageError}
 */
export function resolveWorkers(choice: WorkerChoice): ResolvedWorkers {
  const kvTokens = [choice.kvTokens ?? "auto"].flat();
  for (const tokens of kvTokens) checkNumber("kvTokens", tokens);
  if (choice.workers !== undefined) checkNumber("workers", choice.workers);
  const { groups = 1, copies = "auto", sparseExchange = "states" } = choice;
  checkNumber("groups", groups);
  const workers = originOf(choice);
  const count = countOf(workers, groups);
  if (count !== "auto") kvTokensOfEach(kvTokens, count);
  return { groups, workers, kvTokens, copies, sparseExchange };
}

/**
 * The KV capacity of each worker.
 * @throws {UsageError} unless there is one for all or one for each
 */
export function kvTokensOfEach(kvTokens: readonly KvTokens[], workers: number): readonly KvTokens[] {
  const [first = "auto"] = kvTokens;
  if (kvTokens.length === 1) return Array.from({ length: workers }, () => first);
  if (kvTokens.length === workers) return kvTokens;
  throw new UsageError(
    `Cannot deal KV capacity: one for all or one for each of ${workers} workers is needed, given [${
      kvTokens.join(", ")
    }]`,
  );
}

/** Workers of each group; those that are found one by one have one capacity for all. */
function countOf(workers: WorkerOrigin, groups: number): number | "auto" {
  if (workers.kind === "spawn") return workers.count;
  if (workers.source.kind !== "static") return 1;
  const { length } = workers.source.addresses;
  if (length % groups === 0) return length / groups;
  throw new UsageError(
    `Cannot deal workers to groups: ${length} are named, and ${groups} groups of equal size are asked for`,
  );
}

function originOf(choice: WorkerChoice): WorkerOrigin {
  const { workers, shareGpu = false, gpu = "auto", join, minWorkers, secretFile } = choice;
  if (join === undefined) {
    if ((choice.joinTlsCa ?? choice.joinTlsName) !== undefined) {
      throw new UsageError("Cannot use TLS with workers that are started here: they are reached on this host (--join)");
    }
    if (minWorkers !== undefined) {
      throw new UsageError("Cannot use --min-workers: only joined workers come and go (--join)");
    }
    if (secretFile === undefined) return { kind: "spawn", count: workers ?? 1, shareGpu, gpu };
    throw new UsageError("Cannot use a secret file: only workers that are joined share a secret (--join)");
  }
  if (workers !== undefined || shareGpu) {
    throw new UsageError("Cannot choose workers: either start them here or --join them elsewhere, given both");
  }
  if (gpu !== "auto") {
    throw new UsageError(`Cannot choose ${gpu} for workers elsewhere: each is started with a --gpu of its own`);
  }
  const source = parseJoin(join);
  if (minWorkers !== undefined) checkNumber("workers", minWorkers);
  if (source.kind === "static") checkList(source.addresses, minWorkers ?? 1);
  return { kind: "join", source, minWorkers: minWorkers ?? 1, secretFile, ...tlsOf(choice) };
}

function tlsOf({ joinTlsCa, joinTlsName }: WorkerChoice): { readonly tls?: { ca: string; name?: string } } {
  if (joinTlsCa !== undefined) {
    return { tls: { ca: joinTlsCa, ...(joinTlsName === undefined ? {} : { name: joinTlsName }) } };
  }
  if (joinTlsName === undefined) return {};
  throw new UsageError("Cannot use --join-tls-name: without --join-tls-ca workers speak in clear text");
}

function checkList(addresses: readonly Address[], minWorkers: number): void {
  const names = addresses.map(formatAddress);
  const again = names.find((name, i) => names.indexOf(name) < i);
  if (again !== undefined) throw new UsageError(`Cannot join workers: ${again} is named twice`);
  const { min, max } = BOUNDS.workers;
  if (addresses.length < min || addresses.length > max) {
    throw new UsageError(`Cannot join workers: ${min} to ${max} are possible, given ${addresses.length}`);
  }
  if (minWorkers <= addresses.length) return;
  throw new UsageError(`Cannot wait for ${minWorkers} workers: ${addresses.length} are named`);
}

function checkNumber(name: keyof typeof BOUNDS, value: number | "auto"): void {
  const { min, max } = BOUNDS[name];
  if (value === "auto" || (Number.isInteger(value) && value >= min && value <= max)) return;
  throw new UsageError(`Cannot configure ${name}: must be an integer from ${min} to ${max} or auto, given ${value}`);
}
