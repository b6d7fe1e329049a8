/**
 * Every message between router and worker, and the reading of each: what a peer sends is trusted to be nothing but a
 * decoded MessagePack value until it has passed here. Knows messages; knows nothing of connections or of their order.
 */

import type { Candidates } from "../engine/exchange.ts";
import type { ModelSource } from "../engine/engine.ts";
import type { EngineInfo, MeasuredStep } from "../engine/engine_info.ts";
import { COPY_ROOMS } from "../engine/kv/copy_plan.ts";
import { SPARSE_EXCHANGES, type SparseExchange } from "../engine/replica_plan.ts";
import type { Step, StepResult } from "../engine/span.ts";
import { QUANTIZED_DTYPES } from "../kernels/weights/format.ts";
import type { LoadRequest } from "./engine_host.ts";
import {
  count,
  f32s,
  fieldsOf,
  flag,
  list,
  maybe,
  oneOf,
  real,
  record,
  type Shape,
  text,
  u32s,
  union,
} from "./shape.ts";
import { result, step } from "./step_shapes.ts";

/** Compared in the handshake; goes up with every change to a message or a frame. */
export const PROTOCOL_VERSION = 11;

/** Where a worker listens. */
export interface Address {
  readonly hostname: string;
  readonly port: number;
}

/** A worker's place in a group, and whom it shares it with. */
export interface Form {
  readonly epoch: number;
  /** Of the worker that receives it. */
  readonly index: number;
  /** In the order of their indices. */
  readonly members: readonly Address[];
  /** In which pages are dealt, one for each member. */
  readonly weights: readonly number[];
  /** Whether all members have matrix units that they can use: then all use them, else none does. */
  readonly matrix: boolean;
  /** Whether all members compute the same bits. */
  readonly alike: boolean;
  /** Pages for replicas that each member has. */
  readonly replicaPages: number;
  /** How their sparse layers reach what others hold. */
  readonly sparseExchange: SparseExchange;
  /** For the members to find each other. */
  readonly deadlineMs: number;
}

/** Where and when something was exchanged. */
export interface ExchangeTag {
  readonly epoch: number;
  readonly step: number;
  /** Index of the batch within the step. */
  readonly batch: number;
  readonly layer: number;
}

/** What a worker offers at a select layer; lists row by row, set by set, back to back. */
export interface CandidateLists extends ExchangeTag {
  readonly rows: Candidates["rows"];
  /** Of each list. */
  readonly lengths: Uint32Array;
  /** Global, ascending within a list. */
  readonly positions: Uint32Array;
  /** Competition value of each. */
  readonly values: Float32Array;
}

/** What the router chose of all candidates, in lists as they were offered. */
export interface ChosenLists extends ExchangeTag {
  readonly lengths: Uint32Array;
  readonly positions: Uint32Array;
}

/** What a router sends a worker. */
export type RouterMessage =
  | { readonly kind: "load"; readonly load: LoadRequest }
  | { readonly kind: "step"; readonly step: Step; readonly traceparents: readonly string[] }
  | { readonly kind: "ping"; readonly id: number }
  /** Ends the epoch before: its sequences, its links and a step that still runs are forgotten. */
  | ({ readonly kind: "form" } & Form)
  | ({ readonly kind: "selection" } & ChosenLists)
  /** To the lead: what a step's spans lack whose masks follow, as `LateMasks` of the engine. Only after the step. */
  | { readonly kind: "masks"; readonly step: number; readonly masks: Uint32Array }
  /** Finish what was sent before, then exit. */
  | { readonly kind: "drain" };

/** What a worker sends its router. */
export type WorkerMessage =
  /** The first message after the handshake. */
  | { readonly kind: "hello"; readonly pid: number }
  | { readonly kind: "loading"; readonly doneBytes: number; readonly totalBytes: number }
  | { readonly kind: "loaded"; readonly info: EngineInfo }
  | { readonly kind: "result"; readonly result: StepResult }
  /** The step changed nothing; the worker goes on. */
  | { readonly kind: "refused"; readonly index: number; readonly code: string; readonly message: string }
  /** The last message of a worker that gives up. */
  | { readonly kind: "failed"; readonly code: string; readonly message: string }
  | { readonly kind: "pong"; readonly id: number }
  /** The worker was asked to stop: it goes on until the router drains it. */
  | { readonly kind: "leaving" }
  /** The worker is linked with all its peers. */
  | { readonly kind: "formed"; readonly epoch: number }
  | ({ readonly kind: "candidates" } & CandidateLists)
  /** Half of a wait's time is over. `on`: the peers it waits for, by index; none: the router. */
  | { readonly kind: "stalled"; readonly epoch: number; readonly step: number; readonly on: readonly number[] }
  /** The worker lacks its peers in this epoch, and waits for the group to be formed again. */
  | {
    readonly kind: "severed";
    readonly epoch: number;
    readonly code: string;
    readonly message: string;
    /** Index of the peer at the other end, when there is one. */
    readonly peer?: number;
  };

/** The code of a failure that carries none of its own. */
export const UNKNOWN_FAILURE = "unknown";

/** Shapes of the fields of `ExchangeTag`. */
export const tag = { epoch: count, step: count, batch: count, layer: count } as const;

const info = record<EngineInfo>({
  digest: text,
  layers: count,
  maxPositions: count,
  vocabSize: count,
  parameters: count,
  roles: maybe(list(oneOf("dense", "select", "sparse"))),
  selectLayers: list(count),
  sparse: maybe(record<NonNullable<EngineInfo["sparse"]>>({ budget: count, sparseFrom: count })),
  adapter: text,
  software: flag,
  provider: oneOf("deno", "dawn"),
  matrix: maybe(text),
  cheapCorrections: count,
  measured: list(record<MeasuredStep>({
    kind: oneOf("prefill", "dense", "sparse", "correction"),
    rows: count,
    context: count,
    ms: real,
  })),
  kvPages: count,
  replicaPages: count,
});

const quantizedDType = oneOf(...QUANTIZED_DTYPES);

const model: Shape<ModelSource> = (value, path) => {
  const { directory, random, quantize, contextTokens } = fieldsOf(value, path);
  const source = random === undefined
    ? { directory: text(directory, `${path}.directory`) }
    : { random: text(random, `${path}.random`) };
  return {
    ...source,
    ...(quantize === undefined ? {} : { quantize: quantizedDType(quantize, `${path}.quantize`) }),
    ...(contextTokens === undefined ? {} : { contextTokens: count(contextTokens, `${path}.contextTokens`) }),
  };
};

const kvTokens: Shape<number | "auto"> = (value, path) => value === "auto" ? value : count(value, path);

const candidateRow = record<Candidates["rows"][number]>(
  { sequence: count, position: count, budget: count, sets: count },
  { coverage: real, replicas: count },
);

type OfKind<Message, Kind> = Extract<Message, { readonly kind: Kind }>;

const routerMessage = union<RouterMessage>({
  load: record<OfKind<RouterMessage, "load">>({
    kind: oneOf("load"),
    load: record<LoadRequest>({ model, kvTokens }, {
      workersOnHost: count,
      replicas: flag,
      copies: oneOf(...COPY_ROOMS),
      groupWorkers: count,
    }),
  }),
  step: record<OfKind<RouterMessage, "step">>({ kind: oneOf("step"), step, traceparents: list(text) }),
  ping: record<OfKind<RouterMessage, "ping">>({ kind: oneOf("ping"), id: count }),
  form: record<OfKind<RouterMessage, "form">>({
    kind: oneOf("form"),
    epoch: count,
    index: count,
    members: list(record<Address>({ hostname: text, port: count })),
    weights: list(real),
    matrix: flag,
    alike: flag,
    replicaPages: count,
    sparseExchange: oneOf(...SPARSE_EXCHANGES),
    deadlineMs: real,
  }),
  selection: record<OfKind<RouterMessage, "selection">>({
    kind: oneOf("selection"),
    ...tag,
    lengths: u32s,
    positions: u32s,
  }),
  masks: record<OfKind<RouterMessage, "masks">>({ kind: oneOf("masks"), step: count, masks: u32s }),
  drain: record<OfKind<RouterMessage, "drain">>({ kind: oneOf("drain") }),
});

const workerMessage = union<WorkerMessage>({
  hello: record<OfKind<WorkerMessage, "hello">>({ kind: oneOf("hello"), pid: count }),
  loading: record<OfKind<WorkerMessage, "loading">>({ kind: oneOf("loading"), doneBytes: count, totalBytes: count }),
  loaded: record<OfKind<WorkerMessage, "loaded">>({ kind: oneOf("loaded"), info }),
  result: record<OfKind<WorkerMessage, "result">>({ kind: oneOf("result"), result }),
  refused: record<OfKind<WorkerMessage, "refused">>({
    kind: oneOf("refused"),
    index: count,
    code: text,
    message: text,
  }),
  failed: record<OfKind<WorkerMessage, "failed">>({ kind: oneOf("failed"), code: text, message: text }),
  pong: record<OfKind<WorkerMessage, "pong">>({ kind: oneOf("pong"), id: count }),
  leaving: record<OfKind<WorkerMessage, "leaving">>({ kind: oneOf("leaving") }),
  formed: record<OfKind<WorkerMessage, "formed">>({ kind: oneOf("formed"), epoch: count }),
  candidates: record<OfKind<WorkerMessage, "candidates">>({
    kind: oneOf("candidates"),
    ...tag,
    rows: list(candidateRow),
    lengths: u32s,
    positions: u32s,
    values: f32s,
  }),
  stalled: record<OfKind<WorkerMessage, "stalled">>(
    { kind: oneOf("stalled"), epoch: count, step: count, on: list(count) },
  ),
  severed: record<OfKind<WorkerMessage, "severed">>(
    { kind: oneOf("severed"), epoch: count, code: text, message: text },
    { peer: count },
  ),
});

/**
 * Reads what a router sent.
 * @throws {ProtocolError} naming the field that is wrong
 */
export function parseRouterMessage(value: unknown): RouterMessage {
  return routerMessage(value, "message");
}

/**
 * Reads what a worker sent.
 * @throws {ProtocolError} naming the field that is wrong
 */
export function parseWorkerMessage(value: unknown): WorkerMessage {
  return workerMessage(value, "message");
}
