/**
 * The service that the page came from: every request of the page is made here, with the key that the person entered. Knows
 * paths and errors; knows nothing of views.
 */

import { Observable } from "../frame/observable.ts";

/** Why a request got no answer. */
export class ServiceError extends Error {
  /** `unreachable`: there is no connection; else the service's own code, such as `invalid_api_key`. */
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** A message of a conversation as the API takes it. */
export interface WireMessage {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

/** The served model, as far as the page shows it. */
export interface ModelInfo {
  readonly id: string;
  readonly contextTokens: number;
  /** Undefined: the model has no calibration, and everything is dense. */
  readonly budget: number | undefined;
  readonly sparseFrom: number | undefined;
  readonly layers: number;
}

const KEY = "tidepool.key";

/** A worker of a group that runs steps. */
export interface HealthyWorker {
  readonly adapter: string | null;
  readonly "capacity_tokens": number;
}

/** What `/health` says of one of the groups that serve the model. */
export interface HealthOfGroup {
  readonly group: number;
  readonly state: Health["group"];
  readonly epoch?: number;
  readonly reason?: string;
  /** Absent unless it is ready. */
  readonly workers?: readonly HealthyWorker[];
}

/** What `/health` says. */
export interface Health {
  readonly group: "loading" | "ready" | "broken" | "closed";
  readonly progress?: number;
  readonly reason?: string;
  readonly epoch?: number;
  readonly model?: string;
  readonly groups: readonly HealthOfGroup[];
  readonly "capacity_tokens"?: number;
  readonly draining: boolean;
  readonly "free_tokens": number;
  readonly queue: { readonly running: number; readonly waiting: number };
}

/** Asks the service. */
export class Service {
  /** Whether a key is missing or was refused. */
  readonly needsKey: Observable<boolean> = new Observable(false);

  /** Shown with every request; kept for this tab, or for this browser. */
  get key(): string {
    return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "";
  }

  /** Uses another key. @param isKept also after the tab was closed */
  useKey(key: string, isKept: boolean): void {
    localStorage.removeItem(KEY);
    sessionStorage.removeItem(KEY);
    if (key !== "") (isKept ? localStorage : sessionStorage).setItem(KEY, key);
    this.needsKey.set(false);
  }

  /**
   * The answer to a request, whatever it is made of.
   * @throws {ServiceError} when there is none, or it is a refusal
   */
  async ask(path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
    const headers: Record<string, string> = { "content-type": "application/json" };
    if (this.key !== "") headers.authorization = `Bearer ${this.key}`;
    let response: Response;
    try {
      response = await fetch(path, {
        method: body === undefined ? "GET" : "POST",
        headers,
        ...(body !== undefined && { body: JSON.stringify(body) }),
        ...(signal && { signal }),
      });
    } catch (cause) {
      if (signal?.aborted) throw cause;
      throw new ServiceError("unreachable", "Cannot reach the service: it does not answer", { cause });
    }
    if (response.ok) return response;
    const refusal = await refusalOf(response);
    if (refusal.code === "invalid_api_key") this.needsKey.set(true);
    throw refusal;
  }

  async health(): Promise<Health> {
    return await (await this.ask("/health", undefined, AbortSignal.timeout(5000))).json();
  }

  /** The served model; undefined while it loads. */
  async model(): Promise<ModelInfo | undefined> {
    const { data: [model] } = await (await this.ask("/v1/models")).json();
    if (model === undefined) return undefined;
    return {
      id: model.id,
      contextTokens: model.max_model_len,
      budget: model.attention.budget ?? undefined,
      sparseFrom: model.attention.sparse_from ?? undefined,
      layers: model.attention.layers,
    };
  }

  async metrics(): Promise<string> {
    return await (await this.ask("/metrics", undefined, AbortSignal.timeout(5000))).text();
  }

  /** Tokens of a text by itself. */
  async countTokens(prompt: string, signal?: AbortSignal): Promise<number> {
    return (await (await this.ask("/tokenize", { prompt, add_special_tokens: false }, signal)).json()).count;
  }

  /** Tokens of a conversation as the model gets it. */
  async countPrompt(messages: readonly WireMessage[]): Promise<number> {
    return (await (await this.ask("/tokenize", { messages })).json()).count;
  }

  /** The text of each token of a conversation, in order. */
  async promptPieces(messages: readonly WireMessage[], signal: AbortSignal): Promise<readonly string[]> {
    const body = { messages, "return_token_strs": true };
    return (await (await this.ask("/tokenize", body, signal)).json()).token_strs;
  }
}

async function refusalOf(response: Response): Promise<ServiceError> {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text);
    return new ServiceError(error.code ?? error.type, error.message);
  } catch (cause) {
    // A proxy in between answers in its own words.
    return new ServiceError("bad_answer", `The service answered ${response.status}`, { cause });
  }
}
