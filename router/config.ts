/**
 * What an operator decides about a service, as plain data: parsed once, checked once, read everywhere.
 * Knows names, defaults and bounds; knows nothing of what they do.
 */

import type { ModelSource } from "../engine/engine.ts";
import {
  ATTENTION_FLAGS,
  type AttentionConfig,
  attentionFromFlags,
  resolveAttentionConfig,
} from "./attention_config.ts";
import type { ToolFormatName } from "./answer/answer_part.ts";
import { ACCESS_FLAGS, listOf, resolveAccess, type ResolvedAccess } from "./access/access_config.ts";
import type { Flags, FlagValues } from "./command.ts";
import { UsageError } from "./errors.ts";
import type { AttentionRequest } from "./scheduling/generation.ts";
import { MODEL_FLAGS, modelSource, nameOf } from "./model_choice.ts";
import { defaultThreads } from "./text/text_pool.ts";
import { type ResolvedWorkers, resolveWorkers, WORKER_FLAGS } from "./host/worker_config.ts";

/**
 * What an operator may say about a service; everything left out has a default.
 *
 * @example
 * ```ts
 * const config: ServiceConfig = { model: "/models/llama", port: 8080, attention: { mode: "sparse", budget: 1024 } };
 * ```
 */
export interface ServiceConfig {
  /** Address to listen on. @default "127.0.0.1" */
  readonly host?: string;
  /** 0 takes any free port. @default 8000 */
  readonly port?: number;
  /** Directory of the model, or a GGUF file. @default the embedded tide-10m */
  readonly model?: string;
  /** Serve a named shape with random weights instead of a model: for measuring speed without files. */
  readonly random?: string;
  /**
   * Quantise f16, bf16 or f32 weights while loading, to `q8` or `q4`; random ones to any format.
   * @default as in the files
   */
  readonly quantize?: "q8" | "q4" | "q5" | "q4k" | "q5k" | "q6k";
  /** Longest context in tokens; it must fit, or the service does not start. @default "auto": the longest that fits */
  readonly context?: number | "auto";
  /** Name under which clients ask for the model. @default the directory's (or the shape's) name */
  readonly modelName?: string;
  /** How the model writes tool calls. @default "auto": as its chat template says */
  readonly toolFormat?: "auto" | "hermes" | "llama" | "mistral";
  /** Groups that serve the model side by side, each with the whole model. @default 1 */
  readonly groups?: number;
  /** Workers to start on this host for each group, each on a GPU of its own; `auto` uses every GPU. @default 1 */
  readonly workers?: number | "auto";
  /** Whether several workers may share one GPU. @default false */
  readonly shareGpu?: boolean;
  /**
   * WebGPU implementation of the workers on this host; `auto` takes Dawn on hardware with matrix units.
   * @default "auto"
   */
  readonly gpu?: "auto" | "deno" | "dawn";
  /**
   * Workers that were started elsewhere, instead of starting some: `host:port` of each, or one of `dns:name:port`,
   * `srv:name` and `nats://host:port/group`, where they are found and may come and go. @default none
   */
  readonly join?: readonly string[];
  /** Fewest joined workers that form a group. @default 1 */
  readonly minWorkers?: number;
  /** File whose first line is the secret that joined workers share. @default none, which loopback alone allows */
  readonly secretFile?: string;
  /** Certificates (PEM) to verify joined workers by. @default none: clear text */
  readonly joinTlsCa?: string;
  /** Name expected in the certificates of joined workers. @default the host that is dialled */
  readonly joinTlsName?: string;
  /** KV capacity in tokens of all workers or of each of a group; `auto` takes what the GPU has. @default "auto" */
  readonly kvTokens?: number | "auto" | readonly (number | "auto")[];
  /**
   * Room of each worker for copies of what the others of its group hold, which makes prompts and decoding fast: for one longest
   * context where memory allows, for everything (a group then holds what one worker would), or an eighth of its own. @default "auto"
   */
  readonly copies?: "auto" | "whole" | "least";
  /**
   * What workers exchange in sparse layers: copies of the selected rows, attention states, or whichever costs less.
   * @default "states"
   */
  readonly sparseExchange?: "auto" | "rows" | "states";
  /** The attention of requests that do not choose. @default { mode: "auto" } */
  readonly attention?: AttentionConfig;
  /** Most sequences that decode together. @default 32 */
  readonly maxBatch?: number;
  /** Most requests that may wait for their turn. @default 256 */
  readonly maxQueued?: number;
  /** How long a request may wait for its turn, in milliseconds. @default 120000 */
  readonly queueTimeoutMs?: number;
  /** File of `name:key` lines; requests without one of these keys are refused. @default none: anyone may ask */
  readonly apiKeyFile?: string;
  /** Origins of web pages that may use the API, `https://app.example`; `*` is all. @default none */
  readonly allowOrigin?: readonly string[];
  /** Host names to answer to besides loopback's. @default none on loopback, all elsewhere */
  readonly allowHost?: readonly string[];
  /** Requests of one API key (or address, without keys) that may run at once. @default any number */
  readonly maxRequestsPerClient?: number;
  /** Connections that may be open. @default three quarters of the file descriptors, at most 4096 */
  readonly maxConnections?: number;
  /** Certificate in PEM form, to serve HTTPS; needs `tlsKey`. @default none */
  readonly tlsCert?: string;
  /** Key of the certificate in PEM form. @default none */
  readonly tlsKey?: string;
  /** Largest request body in bytes. @default 33554432 (32 MiB) */
  readonly bodyBytes?: number;
  /** Threads that parse, render templates and tokenize; at least 2. @default half of the cores, 2 to 4 */
  readonly textThreads?: number;
  /** How long one request may take to be parsed and tokenized, in milliseconds. @default 30000 */
  readonly textMs?: number;
  /** How long running answers may take to finish when the service stops, in milliseconds. @default 30000 */
  readonly drainMs?: number;
  /**
   * How long a group that broke may take to come back before waiting and streaming requests end with an error, in
   * milliseconds. @default 60000
   */
  readonly recoverMs?: number;
  /** Form of log lines. @default "text" */
  readonly log?: LogFormat;
  /** Whether `/metrics` also reports shared metrics under vLLM's names. @default "none" */
  readonly metricsCompat?: "none" | "vllm";
}

/**
 * `text` for people, `json` for collectors: one object a line.
 *
 * @example
 * ```ts
 * const log: LogFormat = "json";
 * ```
 */
export type LogFormat = "text" | "json";

/** A `ServiceConfig` with every field filled in; everything below takes this one. */
export interface ResolvedConfig extends ResolvedWorkers {
  readonly host: string;
  readonly port: number;
  readonly model: ModelSource;
  readonly modelName: string;
  /** Undefined: read from the chat template. */
  readonly toolFormat: ToolFormatName | undefined;
  readonly attention: AttentionRequest;
  readonly access: ResolvedAccess;
  readonly maxBatch: number;
  readonly maxQueued: number;
  readonly queueTimeoutMs: number;
  readonly bodyBytes: number;
  readonly textThreads: number;
  readonly textMs: number;
  readonly drainMs: number;
  readonly recoverMs: number;
  readonly log: LogFormat;
  readonly metricsCompat: "none" | "vllm";
}

/** Smallest and largest value of every number, both included. */
const BOUNDS = {
  contextTokens: { min: 64, max: 2 ** 28 },
  port: { min: 0, max: 65535 },
  maxBatch: { min: 1, max: 256 },
  maxQueued: { min: 0, max: 65536 },
  queueTimeoutMs: { min: 1000, max: 86_400_000 },
  bodyBytes: { min: 1024, max: 2 ** 30 },
  textThreads: { min: 2, max: 64 },
  textMs: { min: 100, max: 3_600_000 },
  drainMs: { min: 0, max: 3_600_000 },
  recoverMs: { min: 0, max: 3_600_000 },
} as const;

const DEFAULTS = {
  host: "127.0.0.1",
  port: 8000,
  maxBatch: 32,
  maxQueued: 256,
  queueTimeoutMs: 120_000,
  bodyBytes: 32 * 2 ** 20,
  textMs: 30_000,
  drainMs: 30_000,
  recoverMs: 60_000,
  log: "text",
  metricsCompat: "none",
} as const;

function integerFlag(name: keyof typeof BOUNDS & keyof typeof DEFAULTS, help: string) {
  return { kind: "integer", ...BOUNDS[name], default: DEFAULTS[name], help } as const;
}

/** Flags of `serve`. */
export const SERVICE_FLAGS = {
  ...MODEL_FLAGS,
  ...WORKER_FLAGS,
  modelName: {
    kind: "text",
    value: "NAME",
    help: "name of the model in the API (default: that of its directory or file)",
  },
  toolFormat: {
    kind: "choice",
    choices: ["auto", "hermes", "llama", "mistral"],
    default: "auto",
    help: "how the model writes tool calls; auto reads it from the chat template",
  },
  host: { kind: "text", value: "ADDRESS", default: DEFAULTS.host, help: "address to listen on" },
  port: integerFlag("port", "port to listen on; 0 takes a free one"),
  ...ACCESS_FLAGS,
  ...ATTENTION_FLAGS,
  maxBatch: integerFlag("maxBatch", "most sequences that decode together"),
  maxQueued: integerFlag("maxQueued", "most requests that may wait; further ones get 429"),
  queueTimeout: {
    kind: "integer",
    min: BOUNDS.queueTimeoutMs.min / 1000,
    max: BOUNDS.queueTimeoutMs.max / 1000,
    default: DEFAULTS.queueTimeoutMs / 1000,
    help: "longest time a request may wait for its turn, in seconds",
  },
  bodyBytes: integerFlag("bodyBytes", "largest request body in bytes"),
  textThreads: {
    kind: "integer",
    ...BOUNDS.textThreads,
    help: "threads that parse and tokenize (default: half of the cores, 2 to 4)",
  },
  textMs: integerFlag("textMs", "longest time to parse and tokenize one request, in milliseconds"),
  drainMs: integerFlag("drainMs", "time that running answers get to finish when the service stops, in milliseconds"),
  recoverMs: integerFlag(
    "recoverMs",
    "time a broken group gets to come back before its requests end with an error, in milliseconds",
  ),
  log: { kind: "choice", choices: ["text", "json"], default: DEFAULTS.log, help: "form of log lines" },
  metricsCompat: {
    kind: "choice",
    choices: ["none", "vllm"],
    default: DEFAULTS.metricsCompat,
    help: "also report shared metrics under the names of another server, for its dashboards and autoscalers",
  },
} as const satisfies Flags;

/** What the flags of `serve` say. */
export function configFromFlags(values: FlagValues<typeof SERVICE_FLAGS>): ServiceConfig {
  const { attention, budget, coverage, correction, correctEvery, queueTimeout, ...others } = values;
  const { join, allowOrigin, allowHost, ...same } = others;
  return {
    ...given(same),
    ...(allowOrigin !== undefined && { allowOrigin: listOf(allowOrigin) }),
    ...(allowHost !== undefined && { allowHost: listOf(allowHost) }),
    ...(join !== undefined && { join: join.split(",") }),
    queueTimeoutMs: 1000 * queueTimeout,
    attention: attentionFromFlags({ attention, budget, coverage, correction, correctEvery }),
  };
}

/** The fields that are there. */
function given<T>(fields: T & object): { readonly [Name in keyof T]?: Exclude<T[Name], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as ReturnType<
    typeof given<T>
  >;
}

/**
 * Fills in what is left out and checks the rest.
 * @throws {UsageError}, naming the field, its bounds and the value given
 */
export function resolveConfig(config: ServiceConfig = {}): ResolvedConfig {
  const model = modelSource(config);
  const host = config.host ?? DEFAULTS.host;
  const resolved: ResolvedConfig = {
    host,
    port: config.port ?? DEFAULTS.port,
    model,
    modelName: config.modelName ?? nameOf(model),
    toolFormat: config.toolFormat === "auto" ? undefined : config.toolFormat,
    ...resolveWorkers(config),
    attention: resolveAttentionConfig(config.attention),
    access: resolveAccess(config, host),
    maxBatch: config.maxBatch ?? DEFAULTS.maxBatch,
    maxQueued: config.maxQueued ?? DEFAULTS.maxQueued,
    queueTimeoutMs: config.queueTimeoutMs ?? DEFAULTS.queueTimeoutMs,
    bodyBytes: config.bodyBytes ?? DEFAULTS.bodyBytes,
    textThreads: config.textThreads ?? defaultThreads(),
    textMs: config.textMs ?? DEFAULTS.textMs,
    drainMs: config.drainMs ?? DEFAULTS.drainMs,
    recoverMs: config.recoverMs ?? DEFAULTS.recoverMs,
    log: config.log ?? DEFAULTS.log,
    metricsCompat: config.metricsCompat ?? DEFAULTS.metricsCompat,
  };
  checkBounds({ ...resolved, contextTokens: model.contextTokens });
  return resolved;
}

function checkBounds(numbers: { readonly [Name in keyof typeof BOUNDS]: number | undefined }): void {
  for (const [name, { min, max }] of Object.entries(BOUNDS)) {
    const value = numbers[name as keyof typeof BOUNDS];
    if (value === undefined || (Number.isInteger(value) && value >= min && value <= max)) continue;
    throw new UsageError(
      `Cannot configure ${name}: must be an integer from ${min} to ${max}, given ${value}`,
    );
  }
}
