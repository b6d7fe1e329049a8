/**
 * The parts of a service at work: HTTP, text, scheduler, group and telemetry, made and ended together.
 * Knows who needs whom and in which order; knows nothing of terminals or signals.
 */

import { PAGE_TOKENS } from "../engine/span.ts";
import type { Tokenizer } from "../engine/text/tokenizer.ts";
import { createApp } from "./http/app.ts";
import { longestContext } from "./scheduling/capacity.ts";
import type { ResolvedConfig } from "./config.ts";
import { RequestError } from "./errors.ts";
import type { GroupState, ModelFacts } from "./group/group.ts";
import { DEFAULT_LIMITS } from "./http/limits.ts";
import { ServiceMetrics } from "./telemetry/metrics.ts";
import { MetricsRegistry } from "./telemetry/metrics_registry.ts";
import { RequestRecorder } from "./telemetry/request_record.ts";
import { Scheduler } from "./scheduling/scheduler.ts";
import type { ServedModel, Service, ServiceOptions } from "./service.ts";
import { ServiceLog } from "./telemetry/service_log.ts";
import { nameRoute, openTelemetryMirror, traceRequest } from "./telemetry/telemetry.ts";
import type { TextPool } from "./text/text_pool.ts";
import type { WorkerGroup } from "./group/worker_group.ts";
import { describePlan, openGroup, type WorkerPlan } from "./group/worker_plan.ts";

/** How long clients may take to read what was written before their connections are cut. */
const FLUSH_MS = 5000;

const METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** What must be there before a service can listen. */
export interface ServiceParts {
  readonly config: ResolvedConfig;
  readonly workers: readonly WorkerPlan[];
  /** Closed by the service. */
  readonly text: TextPool;
  readonly tokenizer: Tokenizer;
}

/** A service that listens from the moment it is made. */
export class RunningService implements Service {
  readonly ready: Promise<ServedModel>;
  readonly broken: Promise<string>;
  readonly #drainMs: number;
  readonly #text: TextPool;
  readonly #group: WorkerGroup;
  readonly #scheduler: Scheduler;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  #draining = false;
  #connections: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  constructor({ config, workers, text, tokenizer }: ServiceParts, options: ServiceOptions) {
    const { log: write = () => {}, onProgress = () => {} } = options;
    const log = new ServiceLog(config.log, write);
    this.#drainMs = config.drainMs;
    this.#text = text;
    // Before the group is opened: an address that is taken must not leave a worker behind.
    this.#server = listen(config, (request) => application(request));
    this.#group = openGroup(workers, {
      model: config.model,
      modelId: config.modelName,
      log: (line) => log.say(line),
    });
    const registry = new MetricsRegistry({ "model_name": config.modelName }, openTelemetryMirror);
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
      recoverMs: config.recoverMs,
      observer: {
        onAdmitted: (request, { queueMs }) => recorder.admitted(request, queueMs),
        onStep: (report) => metrics.step(report),
        onCorrection: (_, report) => metrics.corrections.record(report),
        onRefused: (step, error) => log.say(`The group refused step ${step.index}: ${error.message}`),
      },
    });
    const application = this.#application({ config, tokenizer, recorder, registry, log });
    ({ ready: this.ready, broken: this.broken } = follow(this.#group, workers, onProgress));
  }

  get address(): Deno.NetAddr {
    return this.#server.addr;
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
    await within(FLUSH_MS, this.#connections);
  }

  #application(
    { config, tokenizer, recorder, registry, log }: ApplicationParts,
  ): (request: Request) => Promise<Response> {
    const app = createApp({
      generator: this.#scheduler,
      selections: this.#scheduler.selections,
      text: this.#text,
      tokenizer,
      model: () => this.#group.state.kind === "ready" ? this.#group.state.model : undefined,
      state: () => ({ group: this.#group.state, draining: this.#draining, scheduler: this.#scheduler.stats() }),
      observer: recorder,
      limits: {
        bodyBytes: config.bodyBytes,
        pendingBodyBytes: Math.max(config.bodyBytes, DEFAULT_LIMITS.pendingBodyBytes),
      },
      attention: config.attention,
      onInternalError: (error) => log.say(error instanceof Error ? error.stack ?? error.message : String(error)),
      mount: (routes) =>
        routes.get("/metrics", () => new Response(registry.text(), { headers: { "content-type": METRICS_TYPE } })),
    });
    const paths = new Set(app.routes.map(({ path }) => path));
    return async (request) => {
      const { pathname } = new URL(request.url);
      if (paths.has(pathname)) nameRoute(request.method, pathname);
      return await app.fetch(request);
    };
  }
}

interface ApplicationParts {
  readonly config: ResolvedConfig;
  readonly tokenizer: Tokenizer;
  readonly recorder: RequestRecorder;
  readonly registry: MetricsRegistry;
  readonly log: ServiceLog;
}

function listen(
  { host, port }: ResolvedConfig,
  handler: (request: Request) => Promise<Response>,
): Deno.HttpServer<Deno.NetAddr> {
  try {
    return Deno.serve({ hostname: host, port, onListen: () => {} }, handler);
  } catch (cause) {
    const why = cause instanceof Deno.errors.AddrInUse ? "something else listens there already" : String(cause);
    throw new RequestError("invalid_request", `Cannot listen on ${host}:${port}: ${why}`, { cause });
  }
}

/** What becomes of a group, as promises. */
function follow(
  group: WorkerGroup,
  plans: readonly WorkerPlan[],
  onProgress: (fraction: number) => void,
): Pick<Service, "ready" | "broken"> {
  const ready = Promise.withResolvers<ServedModel>();
  const broken = Promise.withResolvers<string>();
  // Who only drains never asks; that the worker failed, `broken` tells too.
  ready.promise.catch(() => "nobody asked");
  group.onState((state: GroupState) => {
    if (state.kind === "loading") onProgress(state.progress);
    if (state.kind === "ready") ready.resolve(served(state.model, plans));
    if (state.kind === "closed") ready.reject(new RequestError("draining", "Cannot serve: the service was stopped"));
    if (state.kind !== "broken") return;
    broken.resolve(state.reason);
    ready.reject(new RequestError("group_unavailable", `Cannot serve: ${state.reason}`));
  });
  return { ready: ready.promise, broken: broken.promise };
}

function served(model: ModelFacts, plans: readonly WorkerPlan[]): ServedModel {
  const { id, parameters, kvPages, adapter, software, slices, adapters } = model;
  const workers = slices.map((pages, i) => {
    const plan = plans[i];
    const place = plan === undefined ? undefined : describePlan(plan);
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
