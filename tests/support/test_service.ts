/**
 * The HTTP application over a scripted generator, a real text thread and the embedded model's tokenizer: everything
 * but the GPU. Knows how to put it together; the test that opens one closes it.
 */

import type { OpenAPIHono } from "@hono/zod-openapi";
import { fileURLToPath } from "node:url";

import { Tokenizer } from "../../engine/text/tokenizer.ts";
import { type AppDeps, createApp } from "../../router/http/app.ts";
import { GrammarService } from "../../router/grammar/grammar_service.ts";
import type { GroupState, ModelInfo } from "../../router/group/group.ts";
import type { GroupReport, ServiceState } from "../../router/http/health.ts";
import type { AcceptedRequest, RequestObserver, RequestOutcome } from "../../router/http/request_observer.ts";
import { SelectionView } from "../../router/scheduling/selection_view.ts";
import { TextPool } from "../../router/text/text_pool.ts";
import { FakeGenerator, type FakeScript } from "./fake_generator.ts";
import { fakeModel } from "./fake_model.ts";
import { NO_CORRECTION } from "./generation_request.ts";

/** A model with a tokenizer, a template and an end-of-turn token. */
export const MODEL_DIRECTORY = fileURLToPath(new URL("../../deploy/models/tide-10m", import.meta.url));

/** A small loaded model. */
export const MODEL_INFO: ModelInfo = {
  ...fakeModel({
    id: "org/tide",
    digest: "0123456789abcdef0123456789abcdef",
    maxPositions: 32_768,
    vocabSize: 8192,
    parameters: 10_000_000,
    sparse: { budget: 256, sparseFrom: 512 },
    cheapCorrections: 0,
  }),
  adapters: ["none"],
};

/** `MODEL_INFO.kvPages` × 64. */
export const CONTEXT_TOKENS = 4096;

/** A group of one worker in some state. */
function reportOf(state: GroupState): GroupReport {
  return {
    state,
    members: { origin: "--workers", found: [{ worker: 0, state: "present" }] },
    scheduler: { running: 1, waiting: 2, pages: { total: 64, used: 10, cached: 4, free: 50 } },
  };
}

/** What an observer saw, in words. */
export class RecordingObserver implements RequestObserver {
  readonly moments: string[] = [];
  readonly accepted: AcceptedRequest[] = [];
  readonly outcomes: RequestOutcome[] = [];

  received({ operation }: { readonly operation: string }): ReturnType<RequestObserver["received"]> {
    this.moments.push(`received ${operation}`);
    return {
      traceparent: "00-11111111111111111111111111111111-2222222222222222-01",
      accepted: (request) => {
        this.moments.push("accepted");
        this.accepted.push(request);
      },
      firstToken: () => void this.moments.push("first token"),
      keepAlive: () => void this.moments.push("keep alive"),
      ended: (outcome) => {
        this.moments.push(outcome.kind);
        this.outcomes.push(outcome);
      },
    };
  }
}

/** Texts of the script, a token each, and the end-of-turn token. */
export function tokensOf(tokenizer: Tokenizer, text: string): number[] {
  return [...tokenizer.encode(text)];
}

/** Of the embedded model; shared by the tests of a file, as its thread takes longer to start than most of them to run. */
const [TOKENIZER, TEXT] = [await Tokenizer.load(MODEL_DIRECTORY), await TextPool.start({ directory: MODEL_DIRECTORY })];

/** Everything a test may look at. */
export class TestService implements Disposable {
  readonly app: OpenAPIHono;
  readonly generator: FakeGenerator;
  readonly tokenizer: Tokenizer;
  readonly observer = new RecordingObserver();
  readonly internalErrors: unknown[] = [];
  state: ServiceState = {
    groups: [reportOf({ kind: "ready", epoch: 3, model: MODEL_INFO })],
    draining: false,
  };
  model: ModelInfo | undefined = MODEL_INFO;
  /** One that it owns. */
  readonly #text: TextPool | undefined;
  readonly #grammars: GrammarService;

  private constructor(
    directory: string,
    { tokenizer, text, ...deps }: { readonly tokenizer: Tokenizer; readonly text: TextPool } & Partial<AppDeps>,
  ) {
    this.#grammars = new GrammarService({ directory });
    this.tokenizer = tokenizer;
    this.#text = text === TEXT ? undefined : text;
    this.generator = new FakeGenerator({ tokens: [...tokensOf(tokenizer, "Hello, wide world!"), 1] });
    this.app = createApp({
      generator: this.generator,
      grammars: this.#grammars,
      text,
      tokenizer,
      model: () => this.model,
      state: () => this.state,
      observer: this.observer,
      selections: new SelectionView({ state: { kind: "ready", epoch: 3, model: MODEL_INFO } }),
      attention: { mode: "auto", budget: undefined, heads: "kv_head", correction: NO_CORRECTION },
      onInternalError: (error) => void this.internalErrors.push(error),
      ...deps,
    });
  }

  /** @param directory of a model's text files */
  static async open(deps: Partial<AppDeps> = {}, directory: string = MODEL_DIRECTORY): Promise<TestService> {
    if (directory === MODEL_DIRECTORY) {
      return new TestService(directory, { ...deps, tokenizer: TOKENIZER, text: TEXT });
    }
    const [tokenizer, text] = [await Tokenizer.load(directory), await TextPool.start({ directory })];
    return new TestService(directory, { ...deps, tokenizer, text });
  }

  /** Its groups are in these states now. */
  enter(...states: readonly GroupState[]): void {
    this.state = { ...this.state, groups: states.map(reportOf) };
  }

  /** Changes what the generator does, as a script over the tokens of a text. */
  say(text: string, script: Omit<FakeScript, "tokens"> = {}): void {
    this.generator.script = { tokens: [...tokensOf(this.tokenizer, text), 1], ...script };
  }

  /** Posts JSON (or raw text) without a socket. */
  post(path: string, body: unknown, init: RequestInit = {}): Promise<Response> {
    const text = typeof body === "string" ? body : JSON.stringify(body);
    return Promise.resolve(this.app.request(path, { method: "POST", body: text, ...init }));
  }

  /** Posts a chat of one user message. */
  chat(fields: Record<string, unknown> = {}, init: RequestInit = {}): Promise<Response> {
    return this.post("/v1/chat/completions", { messages: [{ role: "user", content: "Hi" }], ...fields }, init);
  }

  /** Waits for something to come true. */
  async until(isTrue: () => boolean): Promise<void> {
    const deadlineMs = performance.now() + 5000;
    while (!isTrue()) {
      if (performance.now() > deadlineMs) {
        throw new Error("Cannot wait any longer: 5000 ms passed without it coming true");
      }
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }

  [Symbol.dispose](): void {
    this.#text?.close();
    this.#grammars.close();
  }
}
