/** One streamed answer of `/v1/chat/completions`, as events that views understand. */

import { readEvents } from "./event_stream.ts";
import { type Service, ServiceError } from "./service.ts";

/** `usage` of an answer, as it comes. */
export interface Usage {
  readonly "prompt_tokens": number;
  readonly "completion_tokens": number;
  readonly "prompt_tokens_details": { readonly "cached_tokens": number };
  readonly attention: {
    readonly mode: "dense" | "sparse";
    readonly budget: number | "auto" | null;
    readonly coverage?: number;
    readonly "select_layers": readonly number[];
    readonly context: number;
    readonly "rows_read_per_token": number;
    readonly correction?: {
      readonly mode: "refresh" | "audit" | "lossless";
      readonly corrections: number;
      readonly rows: number;
      readonly "dropped_drafts"?: number;
    };
    readonly audit?: {
      readonly checked: number;
      readonly agreed: number;
      readonly agreement: number | null;
      readonly "mean_kl": number | null;
    };
  };
}

/** How far the prompt is read. */
export interface PrefillProgress {
  readonly total: number;
  readonly cached: number;
  readonly processed: number;
  readonly elapsedMs: number;
}

/** What happens to an answer, in order. */
export type ChatEvent =
  | { readonly kind: "named"; readonly id: string }
  | { readonly kind: "prefill"; readonly progress: PrefillProgress }
  | { readonly kind: "text"; readonly text: string; readonly reasoning: string; readonly tokens: number }
  | { readonly kind: "finished"; readonly reason: string }
  | { readonly kind: "usage"; readonly usage: Usage };

/**
 * Asks for an answer.
 * @throws {ServiceError} when it is refused, fails on the way, or breaks off
 */
export async function* streamChat(
  service: Service,
  body: Readonly<Record<string, unknown>>,
  signal: AbortSignal,
): AsyncGenerator<ChatEvent> {
  const asked = { ...body, stream: true, "stream_options": { "include_usage": true }, ...PROGRESS };
  const response = await service.ask("/v1/chat/completions", asked, signal);
  let isNamed = false;
  let isWhole = false;
  for await (const data of chunksOf(response, signal)) {
    if (data === "[DONE]") {
      isWhole = true;
      continue;
    }
    const chunk = JSON.parse(data);
    if (chunk.error !== undefined) throw new ServiceError(chunk.error.code ?? "failed", chunk.error.message);
    if (!isNamed) yield { kind: "named", id: chunk.id };
    isNamed = true;
    yield* eventsOf(chunk);
  }
  if (!isWhole) throw new ServiceError("unreachable", "Cannot read on: the connection to the service broke off");
}

const PROGRESS = { "return_progress": true, "return_token_ids": true };

async function* chunksOf(response: Response, signal: AbortSignal): AsyncGenerator<string> {
  if (response.body === null) return;
  try {
    for await (const { data } of readEvents(response.body)) yield data;
  } catch (cause) {
    if (signal.aborted) throw cause;
    throw new ServiceError("unreachable", "Cannot read on: the connection to the service broke off", { cause });
  }
}

// deno-lint-ignore no-explicit-any -- the service's own schema, checked by its tests
function* eventsOf({ choices, usage, prompt_progress: progress }: any): Generator<ChatEvent> {
  if (progress !== undefined) {
    const { total, cache: cached, processed, time_ms: elapsedMs } = progress;
    yield { kind: "prefill", progress: { total, cached, processed, elapsedMs } };
  }
  for (const { delta, finish_reason: reason, token_ids: tokens = [] } of choices) {
    const { content, reasoning_content: reasoning } = delta ?? {};
    if (content || reasoning || tokens.length > 0) {
      yield { kind: "text", text: content ?? "", reasoning: reasoning ?? "", tokens: tokens.length };
    }
    if (reason) yield { kind: "finished", reason };
  }
  if (usage) yield { kind: "usage", usage };
}
