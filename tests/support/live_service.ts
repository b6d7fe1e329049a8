/**
 * A whole service on a socket of its own: router, worker process, GPU. Knows how to ask it, what its gauges say and which
 * process computes; the test that starts one disposes of it.
 */

import assert from "node:assert/strict";
import OpenAI from "openai";

import type { ServiceConfig } from "../../router/config.ts";
import type { ServedModel, Service } from "../../router/service.ts";
import { startService } from "../../router/start_service.ts";
import { childrenOf, isRunning } from "./processes.ts";
import { SseReader } from "./sse_reader.ts";

/** What the service holds at one moment. */
export interface Load {
  readonly running: number;
  readonly waiting: number;
  /** Share of the KV pages that sequences hold, summed over the groups. */
  readonly kvUsage: number;
}

/** An answer that is not a stream. */
export interface Answer<Body> {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Body;
  readonly tookMs: number;
}

/** A running service. */
export class LiveService implements AsyncDisposable {
  readonly service: Service;
  readonly model: ServedModel;
  /** What it logged so far. */
  readonly lines: readonly string[];

  private constructor(service: Service, model: ServedModel, lines: readonly string[]) {
    this.service = service;
    this.model = model;
    this.lines = lines;
  }

  /** Starts one on a free port and waits until it serves. */
  static async start(config: ServiceConfig = {}): Promise<LiveService> {
    const lines: string[] = [];
    const service = await startService({ port: 0, ...config }, { log: (line) => lines.push(line) });
    try {
      return new LiveService(service, await service.ready, lines);
    } catch (error) {
      await service.close();
      throw error;
    }
  }

  get origin(): string {
    return `http://127.0.0.1:${this.service.address.port}`;
  }

  /** The official client, which here must succeed at the first try. */
  client(): OpenAI {
    return new OpenAI({ apiKey: "none", baseURL: `${this.origin}/v1`, maxRetries: 0 });
  }

  /** Posts JSON, or a raw body. */
  post(path: string, body: unknown, init: RequestInit = {}): Promise<Response> {
    const raw = typeof body === "string" || body instanceof Uint8Array || body instanceof ReadableStream;
    const sent = raw ? body as BodyInit : JSON.stringify(body);
    return fetch(`${this.origin}${path}`, { method: "POST", body: sent, ...init });
  }

  /** Posts and reads the whole answer. */
  async ask<Body>(path: string, body: unknown, init: RequestInit = {}): Promise<Answer<Body>> {
    const startedMs = performance.now();
    const response = await this.post(path, body, init);
    const { status, headers } = response;
    return { status, headers, body: await response.json(), tookMs: performance.now() - startedMs };
  }

  /** Opens a stream; read it to the end, or leave it. */
  async stream(path: string, body: Readonly<Record<string, unknown>>): Promise<SseReader> {
    const response = await this.post(path, { ...body, stream: true });
    assert.equal(response.status, 200, `${path} answered ${response.status}`);
    assert.ok(response.body !== null);
    return new SseReader(response.body);
  }

  async metrics(): Promise<string> {
    return await (await fetch(`${this.origin}/metrics`)).text();
  }

  /** The value of a metric, summed over its labels. */
  async metric(name: string): Promise<number> {
    const values = (await this.metrics()).matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)$`, "gm"));
    return [...values].reduce((sum, [, value]) => sum + Number(value), 0);
  }

  async load(): Promise<Load> {
    return {
      running: await this.metric("tidepool_num_requests_running"),
      waiting: await this.metric("tidepool_num_requests_waiting"),
      kvUsage: await this.metric("tidepool_kv_cache_usage_perc"),
    };
  }

  /** Waits until no request runs and no page is held. */
  idle(deadlineMs: number): Promise<void> {
    return this.until(async () => {
      const { running, waiting, kvUsage } = await this.load();
      return running === 0 && waiting === 0 && kvUsage === 0;
    }, deadlineMs);
  }

  /** Waits until `/ready` says yes. */
  ready(deadlineMs: number): Promise<void> {
    return this.until(async () => {
      const response = await fetch(`${this.origin}/ready`);
      await response.body?.cancel();
      return response.ok;
    }, deadlineMs);
  }

  /** @throws when the condition does not come true in time */
  async until(condition: () => Promise<boolean>, deadlineMs: number): Promise<void> {
    const end = performance.now() + deadlineMs;
    while (!await condition()) {
      if (performance.now() > end) {
        throw new Error(
          `Cannot wait any longer: ${deadlineMs} ms for ${condition}; ${JSON.stringify(await this.load())}`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** The processes that compute now, in the order in which they were started. */
  async workers(): Promise<readonly number[]> {
    return (await childrenOf(Deno.pid)).filter(isRunning).sort((a, b) => a - b);
  }

  /** The only process that computes now. */
  async worker(): Promise<number> {
    const [pid, ...others] = await this.workers();
    assert.ok(pid !== undefined && others.length === 0, `one worker process expected, found ${[pid, ...others]}`);
    return pid;
  }

  /** Kills one of the processes that compute now. */
  async killWorker(index = 0): Promise<void> {
    Deno.kill((await this.workers())[index] ?? assert.fail(`there is no worker ${index}`), "SIGKILL");
  }

  /** Ends the service; no process may be left. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.service.close();
    assert.deepEqual((await childrenOf(Deno.pid)).filter(isRunning), [], "no process is left");
  }
}
