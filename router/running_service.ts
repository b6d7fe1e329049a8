/**
 * The parts of a service at work: HTTP, text, scheduler, group and telemetry, made and ended together.
 * Knows who needs whom and in which order; knows nothing of terminals or signals.
 */

import { PAGE_TOKENS } from "../engine/span.ts";
import type { Tokenizer } from "../engine/text/tokenizer.ts";
import { AccessControl } from "./access/access_control.ts";
import { AllowedHosts, isLoopback } from "./access/allowed_hosts.ts";
import { AllowedOrigins } from "./access/allowed_origins.ts";
import type { ApiKeys } from "./access/api_keys.ts";
import { ClientQuota } from "./access/client_quota.ts";
import { createApp } from "./http/app.ts";
import { longestContext } from "./scheduling/capacity.ts";
import type { ResolvedConfig } from "./config.ts";
import { RequestError } from "./errors.ts";
import type { GrammarService } from "./grammar/grammar_service.ts";
import { type GroupState, type ModelInfo, modelInService } from "./group/group.ts";
import { DEFAULT_LIMITS } from "./http/limits.ts";
import { ServiceMetrics } from "./telemetry/metrics.ts";
import { MetricsRegistry } from "./telemetry/metrics_registry.ts";
import { VLLM_LABELS, VLLM_NAMES } from "./telemetry/vllm_names.ts";
import { RequestRecorder } from "./telemetry/request_record.ts";
import { Scheduler } from "./scheduling/scheduler.ts";
import type { ServedModel, Service, ServiceOptions } from "./service.ts";
import { ServiceLog } from "./telemetry/service_log.ts";
import type { HttpServer } from "./server/http_server.ts";
import { openTelemetryMirror, traceRequest } from "./telemetry/telemetry.ts";
import type { TextPool } from "./text/text_pool.ts";
import type { MemberReport } from "./group/members.ts";
import type { WorkerGroup } from "./group/worker_group.ts";
import { openGroup } from "./group/open_group.ts";
import type { WorkerPlan } from "./group/worker_plan.ts";

/** How long clients may take to read what was written before their connections are cut. */
const FLUSH_MS = 5000;

const METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** What must be there before a service can listen. */
export interface ServiceParts {
  readonly config: ResolvedConfig;
  readonly workers: readonly WorkerPlan[];
  /** Listens already: an address that is taken must not leave a worker behind. Closed by the service. */
  readonly server: HttpServer;
  /** Undefined: anyone may ask. */
  readonly keys: ApiKeys | undefined;
  /** Closed by the service. */
  readonly text: TextPool;
  /** Closed by the service. */
  readonly grammars: GrammarService;
  readonly tokenizer: Tokenizer;
}

/** A service that answers from the moment it is made. */
export class RunningService implements Service {
  readonly ready: Promise<ServedModel>;
  readonly broken: Promise<string>;
  readonly #drainMs: number;
  readonly #text: TextPool;
  readonly #grammars: GrammarService;
  readonly #group: WorkerGroup;
  readonly #scheduler: Scheduler;
  readonly #server: HttpServer;
  #draining = false;
  #connections: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  readonly address: Deno.NetAddr;

  constructor({ config, workers, server, keys, text, grammars, tokenizer }: ServiceParts, options: ServiceOptions) {
    const { log: write = () => {}, onProgress = () => {} } = options;
    const log = new ServiceLog(config.log, write);
    this.#drainMs = config.drainMs;
    this.#text = text;
    this.#server = server;
    this.address = server.address;
    this.#grammars = grammars;
    this.#group = openGroup(workers, {
      model: config.model,
      modelId: config.modelName,
      minWorkers: config.workers.kind === "join" ? config.workers.minWorkers : 1,
      sparseExchange: config.sparseExchange,
      log: (line) => log.say(line),
    });
    const registry = new MetricsRegistry(
      { "model_name": config.modelName },
      openTelemetryMirror,
      config.metricsCompat === "vllm" ? { names: VLLM_NAMES, labels: VLLM_LABELS } : undefined,
    );
    const metrics = new ServiceMetrics(registry, {
      stats: () => this.#scheduler.stats(),
      groupState: () => this.#group.state,
      workersUp: () => this.#group.workersUp,
    });
    const recorder = new RequestRecorder(traceRequest, [
      (record) => log.request(record),
      (record) => metrics.record(record),
    ]);
    this.#scheduler = new Scheduler(this.#group, {
      maxBatch: config.maxBatch,
      maxQueued: config.maxQueued,
      queueTimeoutMs: config.queueTimeoutMs,
      recoverMs: config.recoverMs,
      constraints: this.#grammars,
      observer: {
        onAdmitted: (request, { queueMs }) => recorder.admitted(request, queueMs),
        onStep: (report) => metrics.step(report),
        onCorrection: (_, report) => metrics.corrections.record(report),
        onRefused: (step, error) => log.say(`The group refused step ${step.index}: ${error.message}`),
      },
    });
    if (keys === undefined && !isLoopback(config.host)) {
      log.say(`Anyone who reaches ${config.host} may use the service: no API keys are configured (--api-key-file)`);
    }
    const access = this.#accessControl({ config, keys, tokenizer, recorder, registry, log });
    server.serve({
      answer: (request, peer) => access.answer(request, peer),
      onRefused: (client, error) => log.refused(client, error),
      onError: (error) => log.failure(error),
    });
    ({ ready: this.ready, broken: this.broken } = follow(this.#group, {
      contextTokens: config.model.contextTokens ?? 0,
      onProgress,
    }));
  }

  async drain(): Promise<void> {
    this.#draining = true;
    this.#connections ??= this.#server.shutdown();
    await this.#scheduler.drain(this.#drainMs);
    await within(FLUSH_MS, this.#connections);
    await this.close();
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#draining = true;
    this.#connections ??= this.#server.shutdown();
    const scheduler = this.#scheduler.close();
    await this.#group.close();
    await scheduler;
    this.#text.close();
    this.#grammars.close();
    await within(FLUSH_MS, this.#connections);
    await this.#server.close();
  }

  #accessControl({ config, keys, log, ...parts }: ApplicationParts): AccessControl {
    const onInternalError = (error: unknown) => log.failure(error);
    const app = this.#application({ config, onInternalError, ...parts });
    return new AccessControl((request) => app.fetch(request), {
      hosts: new AllowedHosts(config.host, config.access.allowHost),
      origins: new AllowedOrigins(config.access.allowOrigin),
      keys,
      quota: new ClientQuota(config.access.maxRequestsPerClient),
      onAnswered: (request) => log.answered(request),
      onInternalError,
    });
  }

  #application(
    { config, tokenizer, recorder, registry, onInternalError }: Omit<ApplicationParts, "keys" | "log"> & {
      readonly onInternalError: (error: unknown) => void;
    },
  ): ReturnType<typeof createApp> {
    return createApp({
      generator: this.#scheduler,
      selections: this.#scheduler.selections,
      text: this.#text,
      grammars: this.#grammars,
      tokenizer,
      model: () => modelInService(this.#group.state),
      state: () => ({
        group: this.#group.state,
        members: this.#group.members,
        draining: this.#draining,
        scheduler: this.#scheduler.stats(),
      }),
      observer: recorder,
      limits: {
        bodyBytes: config.bodyBytes,
        pendingBodyBytes: Math.max(config.bodyBytes, DEFAULT_LIMITS.pendingBodyBytes),
      },
      attention: config.attention,
      onInternalError,
      mount: (routes) =>
        routes.get("/metrics", () => new Response(registry.text(), { headers: { "content-type": METRICS_TYPE } })),
    });
  }
}

interface ApplicationParts {
  readonly config: ResolvedConfig;
  readonly keys: ApiKeys | undefined;
  readonly tokenizer: Tokenizer;
  readonly recorder: RequestRecorder;
  readonly registry: MetricsRegistry;
  readonly log: ServiceLog;
}

/** Of a group that holds too little. */
const REMEDY = "--context auto takes what fits; quantised weights (--quantize) or more workers leave more";

/** What becomes of a group, as promises. */
function follow(
  group: WorkerGroup,
  { contextTokens, onProgress }: {
    /** That the group must hold when it is ready first. */
    readonly contextTokens: number;
    readonly onProgress: (fraction: number) => void;
  },
): Pick<Service, "ready" | "broken"> {
  const ready = Promise.withResolvers<ServedModel>();
  const broken = Promise.withResolvers<string>();
  // Who only drains never asks; that the worker failed, `broken` reports too.
  ready.promise.catch(() => "`broken` reports it too");
  const fail = (reason: string) => {
    broken.resolve(reason);
    ready.reject(new RequestError("group_unavailable", `Cannot serve: ${reason}`));
  };
  let wasReady = false;
  group.onState((state: GroupState) => {
    if (state.kind === "loading") onProgress(state.progress);
    if (state.kind === "ready" && !wasReady) {
      wasReady = true;
      const longest = longestContext(state.model);
      if (longest >= contextTokens) ready.resolve(served(state.model, group.members.found));
      else fail(`a context of ${contextTokens} tokens does not fit: the workers hold ${longest}; ${REMEDY}`);
    }
    if (state.kind === "closed") ready.reject(new RequestError("draining", "Cannot serve: the service was stopped"));
    if (state.kind === "broken") fail(state.reason);
  });
  return { ready: ready.promise, broken: broken.promise };
}

function served(model: ModelInfo, members: readonly MemberReport[]): ServedModel {
  const { id, parameters, kvPages, adapter, software, slices, adapters } = model;
  const places = members.filter(({ state }) => state === "present").map(({ place }) => place);
  const workers = slices.map((pages, i) => {
    const place = places[i];
    return {
      adapter: adapters[i] ?? adapter,
      kvTokens: pages * PAGE_TOKENS,
      ...(place === undefined ? {} : { place }),
    };
  });
  const contextTokens = longestContext(model);
  return { id, parameters, kvTokens: kvPages * PAGE_TOKENS, contextTokens, adapter, software, workers };
}

/** Waits for something, but not for long. */
async function within(deadlineMs: number, done: Promise<void>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => timer = setTimeout(resolve, deadlineMs));
  await Promise.race([done, late]).finally(() => clearTimeout(timer));
}
