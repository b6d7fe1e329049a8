/**
 * The client's side of a streamed chat completion: asks a server and yields what it says.
 * Knows the wire format; knows nothing of terminals.
 */

import { CodedError } from "../../../kernels/errors.ts";

/** One turn of a conversation. */
export interface ChatMessage {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

/** What is asked. */
export interface ChatQuestion {
  readonly model: string;
  readonly messages: readonly ChatMessage[];
  /** The server decides what is left out. */
  readonly attention: {
    readonly mode?: string;
    readonly budget?: number | "auto";
    readonly coverage?: number;
    readonly correction?: string;
  };
  readonly maxTokens?: number;
}

/** The `usage` of an answer, as far as it is shown. */
export interface ChatUsage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly cachedTokens: number;
  /** Undefined when the server is not Tidepool. */
  readonly attention:
    | {
      readonly mode: string;
      readonly budget: number | "auto" | undefined;
      readonly coverage?: number;
      readonly context: number;
      /** Undefined when nothing was audited. */
      readonly audit?: { readonly checked: number; readonly agreed: number };
    }
    | undefined;
}

/** What comes back, in order. */
export type ChatEvent =
  | { readonly kind: "prefill"; readonly fraction: number }
  /** What the model thinks before it answers. */
  | { readonly kind: "reasoning"; readonly text: string }
  | { readonly kind: "text"; readonly text: string }
  /** What the answer has cost so far; the last one counts. */
  | { readonly kind: "usage"; readonly usage: ChatUsage };

/** The server refused, failed or cannot be reached, or would refuse. */
export class ChatError extends CodedError<"unreachable" | "refused" | "broken_stream" | "too_long"> {}

/** A server that sends no byte, comments included, for so long counts as dead. */
const SILENCE_MS = 120_000;

/** A server that speaks OpenAI's API. */
export class ChatClient {
  /** Where its API begins, without a slash at the end. */
  readonly url: string;
  readonly #authorization: Readonly<Record<string, string>>;

  /** @param url with or without the scheme and the version at its end @param apiKey undefined: the server wants none */
  constructor(url: string, apiKey?: string) {
    const plain = (/^\w+:\/\//.test(url) ? url : `http://${url}`).replace(/\/+$/, "");
    this.url = /\/v\d+$/.test(plain) ? plain : `${plain}/v1`;
    this.#authorization = apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` };
  }

  /**
   * The first model that the server offers.
   * @throws {ChatError}
   */
  async model(signal: AbortSignal): Promise<string> {
    const response = await this.#fetch("/models", { signal });
    const body = await response.json() as { data?: readonly { id?: unknown }[] };
    const id = body.data?.[0]?.id;
    if (typeof id === "string") return id;
    throw new ChatError("refused", `Cannot chat with ${this.url}: it offers no model`);
  }

  /**
   * Asks and yields the answer as it comes.
   * @throws {ChatError} also when the stream ends before the answer does
   */
  async *ask(question: ChatQuestion, signal: AbortSignal): AsyncGenerator<ChatEvent> {
    const response = await this.#fetch("/chat/completions", {
      method: "POST",
      signal,
      body: JSON.stringify({
        model: question.model,
        messages: question.messages,
        attention: question.attention,
        ...(question.maxTokens === undefined ? {} : { "max_completion_tokens": question.maxTokens }),
        stream: true,
        // With every chunk: an answer that is stopped has cost something, too.
        "stream_options": { "include_usage": true, "continuous_usage_stats": true },
        "return_progress": true,
      }),
    });
    for await (const { field, value } of readEvents(response)) {
      if (field === "comment") yield* progressOf(value);
      else if (value === "[DONE]") return;
      else yield* eventsOf(value);
    }
    throw new ChatError("broken_stream", "Cannot finish the answer: the server closed the stream");
  }

  async #fetch(path: string, init: RequestInit): Promise<Response> {
    let response: Response;
    try {
      const headers = { ...this.#authorization, "content-type": "application/json" };
      response = await fetch(this.url + path, { ...init, headers });
    } catch (cause) {
      if (init.signal?.aborted) throw cause;
      throw new ChatError("unreachable", `Cannot reach ${this.url}: is the server running? (deno task start)`, {
        cause,
      });
    }
    if (response.ok) return response;
    const text = await response.text();
    throw new ChatError("refused", `Cannot chat with ${this.url}: ${response.status} ${messageIn(text)}`);
  }
}

/** One line of an event stream that carries data or a comment. */
interface StreamLine {
  readonly field: "data" | "comment";
  readonly value: string;
}

/** Lines of an event stream; each event of this API is a single `data` line. */
async function* readEvents(response: Response): AsyncGenerator<StreamLine> {
  if (response.body === null) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await withinSilence(reader.read());
      if (done) return;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop() ?? "";
      for (const line of lines) {
        const [, name, said = ""] = /^(data)?: ?(.*)$/.exec(line) ?? [];
        if (line.startsWith("data:") || line.startsWith(":")) {
          yield { field: name === undefined ? "comment" : "data", value: said };
        }
      }
    }
  } finally {
    await reader.cancel();
  }
}

async function withinSilence<T>(next: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const silence = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () =>
        reject(new ChatError("broken_stream", `Cannot read the answer: the server sent nothing for ${SILENCE_MS} ms`)),
      SILENCE_MS,
    );
  });
  return await Promise.race([next, silence]).finally(() => clearTimeout(timer));
}

function* progressOf(comment: string): Generator<ChatEvent> {
  const [, json] = /^prefill (\{.*\})$/.exec(comment) ?? [];
  if (json === undefined) return;
  const { total, processed } = JSON.parse(json) as { total?: number; processed?: number };
  if (total !== undefined && processed !== undefined && total > 0) {
    yield { kind: "prefill", fraction: processed / total };
  }
}

interface Chunk {
  readonly error?: { readonly message?: string };
  readonly choices?: readonly {
    readonly delta?: { readonly content?: string | null; readonly reasoning_content?: string | null };
  }[];
  readonly usage?: {
    readonly prompt_tokens: number;
    readonly completion_tokens: number;
    readonly prompt_tokens_details?: { readonly cached_tokens?: number };
    readonly attention?: {
      readonly mode: string;
      readonly budget?: number | "auto" | null;
      readonly coverage?: number;
      readonly context: number;
      readonly audit?: { readonly checked: number; readonly agreed: number };
    };
  } | null;
}

function* eventsOf(data: string): Generator<ChatEvent> {
  const chunk = JSON.parse(data) as Chunk;
  if (chunk.error !== undefined) {
    throw new ChatError("refused", `Cannot finish the answer: ${chunk.error.message ?? "the server failed"}`);
  }
  const { content: text, reasoning_content: reasoning } = chunk.choices?.[0]?.delta ?? {};
  if (reasoning) yield { kind: "reasoning", text: reasoning };
  if (text) yield { kind: "text", text };
  const { usage } = chunk;
  if (usage === undefined || usage === null) return;
  const { attention } = usage;
  yield {
    kind: "usage",
    usage: {
      promptTokens: usage.prompt_tokens,
      completionTokens: usage.completion_tokens,
      cachedTokens: usage.prompt_tokens_details?.cached_tokens ?? 0,
      attention: attention && { ...attention, budget: attention.budget ?? undefined },
    },
  };
}

function messageIn(body: string): string {
  try {
    const { error } = JSON.parse(body) as { error?: { message?: string } };
    return error?.message ?? body.slice(0, 200);
  } catch (error) {
    if (error instanceof SyntaxError) return body.slice(0, 200);
    throw error;
  }
}
