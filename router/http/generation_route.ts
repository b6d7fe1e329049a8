/**
 * Serves one generation request over HTTP, whatever its wire format: body → text thread → scheduler → answer, whole or
 * streamed. Owns the request's life and its observation; knows nothing of chats or prompts.
 */

import type { Tokenizer } from "../../engine/text/tokenizer.ts";
import { contextOf } from "../access/request_context.ts";
import type { AnswerPart } from "../answer/answer_part.ts";
import type { ScoredToken } from "./answer.ts";
import { longestContext } from "../scheduling/capacity.ts";
import { describeError, errorCode } from "../errors.ts";
import type { AttentionRequest, Generator } from "../scheduling/generation.ts";
import { GenerationRun } from "./generation_run.ts";
import type { GrammarChecker } from "../grammar/grammar_service.ts";
import type { ModelInfo } from "../group/group.ts";
import { refusalOf, type ServiceState } from "./health.ts";
import { BodyBrokenOff, type BodyReader, type Limits } from "./limits.ts";
import type { PrepareContext, PreparedGeneration } from "../text/prepare.ts";
import type { RequestObservation, RequestObserver } from "./request_observer.ts";
import { SSE_HEADERS, sseStream } from "./sse.ts";
import type { TextResults, TextService } from "../text/text_jobs.ts";
import type { AnswerContext, AnswerHead, WholeChoice, WireFormat } from "./wire_format.ts";

/** What serving needs of the rest of the service. */
export interface ServingDeps {
  readonly generator: Generator;
  readonly text: TextService;
  readonly grammars: GrammarChecker;
  /** Of the served model; turns tokens back into text. */
  readonly tokenizer: Tokenizer;
  /** Undefined while it loads. */
  readonly model: () => ModelInfo | undefined;
  readonly state: () => ServiceState;
  readonly observer: RequestObserver;
  readonly bodies: BodyReader;
  readonly limits: Limits;
  /** How requests that do not say attend. */
  readonly attention: AttentionRequest;
  /** Errors whose cause is kept from the client. */
  readonly onInternalError: (error: unknown) => void;
}

/** What of the client's request lives longer than its body. */
export interface Client {
  readonly request: Request;
  readonly format: WireFormat;
}

const TRACEPARENT = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;

/** nginx's number for a client that closed the connection; it is never received. */
const CLIENT_CLOSED = 499;

/**
 * Answers a request for text.
 * @throws {CodedError} whatever refused it before the first byte
 */
export async function serveGeneration({ request, format }: Client, deps: ServingDeps): Promise<Response> {
  const id = format.idPrefix + crypto.randomUUID().replaceAll("-", "");
  const sent = request.headers.get("traceparent");
  const traceparent = sent !== null && TRACEPARENT.test(sent) ? sent : undefined;
  const observation = deps.observer.received({
    operation: format.operation,
    id,
    traceparent,
    context: contextOf(request),
  });
  let run: GenerationRun;
  let reply: Reply;
  try {
    const model = servedModel(deps);
    const prepared = await readJob(format.job, request, { deps, model });
    if (prepared.grammar !== undefined) await deps.grammars.check(prepared.grammar, prepared.grammarParam);
    run = new GenerationRun({ ...deps, id, prepared, observation, signal: request.signal });
    observation.accepted(acceptedInfo(prepared, model));
    const running = run;
    const context = { head: answerHead(id, model), prepared, usage: () => running.usage };
    reply = { format, prepared, run, observation, deps, signal: request.signal, context };
  } catch (error) {
    // A torn body is often seen before the signal is aborted.
    if (request.signal.aborted || error instanceof BodyBrokenOff) {
      observation.ended({ kind: "disconnected", phase: "reading" });
      return new Response(null, { status: CLIENT_CLOSED });
    }
    observation.ended({ kind: "failed", code: errorCode(error), status: describeError(error).status });
    throw error;
  }
  return reply.prepared.stream ? streamed(reply) : await whole(reply);
}

/**
 * Reads the body and has the text thread do a job with it.
 * @throws {CodedError}
 */
export async function readJob<Kind extends keyof TextResults>(
  kind: Kind,
  request: Request,
  { deps, model }: { deps: ServingDeps; model: ModelInfo },
): Promise<TextResults[Kind]> {
  const body = await deps.bodies.read(request);
  try {
    const { bytes } = body;
    return await deps.text.run(kind, { bytes, context: prepareContext(model, deps.attention), signal: request.signal });
  } finally {
    body.release();
  }
}

/** @throws {RequestError} `draining`, `loading`, `group_unavailable` */
export function servedModel({ state, model }: ServingDeps): ModelInfo {
  const now = state();
  const info = now.draining ? undefined : model();
  if (info === undefined) throw refusalOf(now);
  return info;
}

interface Reply {
  readonly format: WireFormat;
  readonly prepared: PreparedGeneration;
  readonly run: GenerationRun;
  readonly observation: RequestObservation;
  readonly deps: ServingDeps;
  readonly context: AnswerContext;
  /** Aborted when the client is gone. */
  readonly signal: AbortSignal;
}

/** What is collected of a choice until it is whole. */
interface Collected {
  text: string;
  readonly parts: AnswerPart[];
  readonly tokens: number[];
  readonly scored: ScoredToken[];
}

function answerHead(id: string, model: ModelInfo): AnswerHead {
  const fingerprint = `fp_${model.digest.slice(0, 10)}`;
  return { id, created: Math.floor(Date.now() / 1000), model: model.id, fingerprint };
}

async function whole({ format, context, run }: Reply): Promise<Response> {
  const collected = new Map<number, Collected>();
  const choices: WholeChoice[] = [];
  try {
    for await (const { index, value } of run.pieces()) {
      if (value.kind === "prefill") continue;
      const choice = collected.get(index) ?? { text: "", parts: [], tokens: [], scored: [] };
      collected.set(index, choice);
      choice.text += value.text;
      choice.parts.push(...value.parts);
      if (value.kind === "text") {
        choice.tokens.push(value.token);
        if (value.scored) choice.scored.push(value.scored);
      } else {
        const isScored = context.prepared.sampling.topLogprobs !== undefined;
        choices[index] = { ...value, ...choice, index, scored: isScored ? choice.scored : undefined };
      }
    }
    if (run.cancelled) return new Response(null, { status: CLIENT_CLOSED });
    return Response.json(format.whole(context, choices));
  } catch (error) {
    run.fail(error);
    throw error;
  } finally {
    run.close();
  }
}

function streamed(reply: Reply): Response {
  const { keepAliveMs, stallMs } = reply.deps.limits;
  const body = sseStream(frames(reply), {
    keepAliveMs,
    stallMs,
    signal: reply.signal,
    onKeepAlive: () => reply.observation.keepAlive(),
    // What has not begun cannot end by itself: an untouched generator skips its `finally`.
    onCancel: () => {
      reply.run.cancel();
      reply.run.close();
    },
  });
  return new Response(body, { headers: SSE_HEADERS });
}

/** All events of a stream. Does not throw: a failure is its last frame. */
async function* frames({ format, context, run, deps }: Reply): AsyncGenerator<string> {
  const writer = format.stream(context);
  const startedMs = performance.now();
  try {
    yield* writer.start();
    for await (const { index, value } of run.pieces()) {
      yield* value.kind === "prefill"
        ? writer.prefill(value, performance.now() - startedMs)
        : writer.piece(index, value);
    }
    if (run.cancelled) return;
    yield* writer.end();
  } catch (error) {
    run.fail(error);
    const failure = describeError(error);
    if (failure.internal) deps.onInternalError(error);
    yield* writer.failed(failure);
  } finally {
    run.close();
  }
}

function prepareContext(model: ModelInfo, attention: AttentionRequest): PrepareContext {
  return {
    modelId: model.id,
    contextTokens: longestContext(model),
    maxPositions: model.maxPositions,
    vocabSize: model.vocabSize,
    calibrated: model.roles !== undefined,
    attention,
  };
}

function acceptedInfo({ prompts, n, sampling, stream, attention }: PreparedGeneration, model: ModelInfo) {
  return {
    model: model.id,
    stream,
    attention,
    choices: prompts.length * n,
    promptTokens: prompts.reduce((total, prompt) => total + prompt.tokens.length, 0),
    maxTokens: Math.max(...prompts.map((prompt) => prompt.maxTokens)),
    temperature: sampling.temperature,
    topP: sampling.topP,
    topK: sampling.topK,
  };
}
