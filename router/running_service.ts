/**
 * The parts of a service at work: HTTP, text, scheduler, group and telemetry, made and ended together.
 * Knows which part needs which, and in which order; knows nothing of terminals or signals.
 */

import { within } from "../kernels/within.ts";
import type { Tokenizer } from "../engine/text/tokenizer.ts";
import { AccessControl } from "./access/access_control.ts";
import { AllowedHosts, isLoopback } from "./access/allowed_hosts.ts";
import { AllowedOrigins } from "./access/allowed_origins.ts";
import type { ApiKeys } from "./access/api_keys.ts";
import { ClientQuota } from "./access/client_quota.ts";
import { createApp } from "./http/app.ts";
import type { ResolvedConfig } from "./config.ts";
import { Fleet } from "./fleet/fleet.ts";
import { openGroups } from "./fleet/open_groups.ts";
import { follow } from "./fleet/readiness.ts";
import type { GrammarService } from "./grammar/grammar_service.ts";
import { DEFAULT_LIMITS } from "./http/limits.ts";
import { ServiceMetrics } from "./telemetry/metrics.ts";
import { MetricsRegistry } from "./telemetry/metrics_registry.ts";
import { VLLM_NAMES, vllmLabels } from "./telemetry/vllm_names.ts";
import { RequestRecorder } from "./telemetry/request_record.ts";
import type { ServedModel, Service, ServiceOptions } from "./service.ts";
import { ServiceLog } from "./telemetry/service_log.ts";
import type { SchedulerObserver } from "./scheduling/scheduler_observer.ts";
import type { HttpServer } from "./server/http_server.ts";
import { openTelemetryMirror, traceRequest } from "./telemetry/telemetry.ts";
import type { TextPool } from "./text/text_pool.ts";
import type { GroupPlan } from "./group/open_group.ts";
import type { WorkerGroup } from "./group/worker_group.ts";
import type { WorkerPlan } from "./group/worker_plan.ts";

/** How long clients may take to read what was written before their connections are cut. */
const FLUSH_MS = 5000;

const METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** What must be there before a service can listen. */
export interface ServiceParts {
  readonly config: ResolvedConfig;
  /** Of each group. */
  readonly workers: readonly (readonly WorkerPlan[])[];
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
  readonly #fleet: Fleet<WorkerGroup>;
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
    const groups = openGroups(workers, groupPlanOf(config, log));
    const registry = registryOf(config);
    const metrics = new ServiceMetrics(registry, { groups: () => this.#groupsNow() });
    const recorder = new RequestRecorder(traceRequest, [
      (record) => log.request(record),
      (record) => metrics.record(record),
    ]);
    this.#fleet = new Fleet(groups, (group) => ({
      maxBatch: config.maxBatch,
      maxQueued: Math.ceil(config.maxQueued / groups.length),
      queueTimeoutMs: config.queueTimeoutMs,
      recoverMs: config.recoverMs,
      constraints: grammars,
      observer: observerOf(group, { recorder, metrics, log }),
    }));
    if (keys === undefined && !isLoopback(config.host)) {
      log.say(`Anyone who reaches ${config.host} may use the service: no API keys are configured (--api-key-file)`);
    }
    const access = this.#accessControl({ config, keys, tokenizer, recorder, registry, log });
    server.serve({
      answer: (request, peer) => access.answer(request, peer),
      onRefused: (client, error) => log.refused(client, error),
      onError: (error) => log.failure(error),
    });
    ({ ready: this.ready, broken: this.broken } = follow(groups, {
      contextTokens: config.model.contextTokens ?? 0,
      onProgress,
      log: (line) => log.say(line),
    }));
  }

  async drain(): Promise<void> {
    this.#draining = true;
    this.#connections ??= this.#server.shutdown();
    await this.#fleet.drain(this.#drainMs);
    await within(FLUSH_MS, this.#connections);
    await this.close();
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  #groupsNow() {
    return this.#fleet.groups.map(({ group: { state, members, workersUp }, scheduler }) => ({
      state,
      members,
      workersUp,
      scheduler: scheduler.stats(),
    }));
  }

  async #close(): Promise<void> {
    this.#draining = true;
    this.#connections ??= this.#server.shutdown();
    const fleet = this.#fleet.close();
    await Promise.all(this.#fleet.groups.map(({ group }) => group.close()));
    await fleet;
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
      generator: this.#fleet,
      selections: this.#fleet,
      text: this.#text,
      grammars: this.#grammars,
      tokenizer,
      model: () => this.#fleet.model,
      state: () => ({
        groups: this.#groupsNow(),
        draining: this.#draining,
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

/** What all groups have in common. */
function groupPlanOf(
  { model, modelName, workers, copies, sparseExchange }: ResolvedConfig,
  log: ServiceLog,
): GroupPlan {
  return {
    model,
    modelId: modelName,
    minWorkers: workers.kind === "join" ? workers.minWorkers : 1,
    copies,
    sparseExchange,
    log: (line) => log.say(line),
  };
}

function registryOf({ modelName, metricsCompat }: ResolvedConfig): MetricsRegistry {
  const aliases = metricsCompat === "vllm" ? { names: VLLM_NAMES, labels: vllmLabels } : undefined;
  return new MetricsRegistry({ "model_name": modelName }, openTelemetryMirror, aliases);
}

/** Passes on what the scheduler of a group reports. */
function observerOf(
  group: number,
  { recorder, metrics, log }: {
    readonly recorder: RequestRecorder;
    readonly metrics: ServiceMetrics;
    readonly log: ServiceLog;
  },
): SchedulerObserver {
  return {
    onAdmitted: (request, { queueMs }) => recorder.admitted(request, queueMs),
    onStep: (report) => metrics.step(report, group),
    onCorrection: (_, report) => metrics.corrections.record(report),
    onRefused: (step, error) => log.say(`Group ${group} refused step ${step.index}: ${error.message}`),
  };
}

interface ApplicationParts {
  readonly config: ResolvedConfig;
  readonly keys: ApiKeys | undefined;
  readonly tokenizer: Tokenizer;
  readonly recorder: RequestRecorder;
  readonly registry: MetricsRegistry;
  readonly log: ServiceLog;
}
