/**
 * From the bytes of a request to what the scheduler needs: checked fields, prompt tokens, settings.
 * Knows the model's text side and its limits; runs in the text thread and knows nothing of HTTP or of answers.
 */

import { at } from "../../kernels/at.ts";
import type { SamplingSettings } from "../../engine/span.ts";
import { RequestError } from "../errors.ts";
import type { AttentionRequest } from "../scheduling/generation.ts";
import type { GrammarSpec } from "../grammar/grammar_spec.ts";
import { type AnswerForm, PLAIN, THINK } from "../answer/answer_part.ts";
import { TOOL_FORMATS } from "../answer/tool_formats.ts";
import { type AnswerGrammar, answerGrammar } from "./answer_grammar.ts";
import { afterReasoning, reasoningOf } from "./reasoning.ts";
import { planTools } from "./tools.ts";
import { requestedAttention } from "./requested_attention.ts";
import type { ModelText } from "./model_text.ts";
import { chatPrompt, completionPrompts, type Prompt, tokensWithin } from "./prompt.ts";
import {
  type ChatBody,
  chatSchema,
  checkBody,
  type CompletionBody,
  completionSchema,
  MAX_CHOICES,
} from "../body/schemas.ts";

/** What a request is checked against; taken when it arrives, as the model may be another one later. */
export interface PrepareContext {
  readonly modelId: string;
  /** Tokens one sequence can have, prompt and answer together. */
  readonly contextTokens: number;
  /** The longest context the model was made for: the largest sensible budget. */
  readonly maxPositions: number;
  readonly vocabSize: number;
  /** Whether the model can attend sparsely at all. */
  readonly calibrated: boolean;
  /** How requests that do not say attend. */
  readonly attention: AttentionRequest;
}

/** One prompt of a request, and how far its answer may go. */
export interface PreparedPrompt {
  /** At least one. */
  readonly tokens: Uint32Array;
  readonly maxTokens: number;
  /** The client did not ask for so many. */
  readonly isMaxTokensOpen: boolean;
  /** Text to put before the answer, when the client asked for it. */
  readonly echo: string | undefined;
}

/** A valid generation request; plain data that crosses the thread as it is. */
export interface PreparedGeneration {
  readonly stream: boolean;
  readonly includeUsage: boolean;
  /** With every chunk. */
  readonly continuousUsage: boolean;
  readonly returnProgress: boolean;
  readonly returnTokenIds: boolean;
  /** Choice index = prompt index × n + i. */
  readonly prompts: readonly PreparedPrompt[];
  readonly n: number;
  /** Of choice i of each prompt: the seed plus i. */
  readonly sampling: SamplingSettings;
  readonly attention: AttentionRequest;
  /** What each answer must look like. */
  readonly grammar: GrammarSpec | undefined;
  /** The field that asked for it. */
  readonly grammarParam: string | undefined;
  readonly stopTokens: readonly number[];
  /** Those of `stopTokens` the client listed itself: reported as `stop_reason`. */
  readonly listedStopTokens: readonly number[];
  readonly stopStrings: readonly string[];
  readonly includeStopString: boolean;
  readonly skipSpecialTokens: boolean;
  /** Fields of the request that the answer repeats. */
  readonly echoed?: Readonly<Record<string, unknown>>;
  /** How the text of each answer is read. */
  readonly form: AnswerForm;
  /** Special tokens that count as text. */
  readonly markers: readonly string[];
  readonly cacheSalt: string;
  /** Lower ones go first. */
  readonly priority: number;
}

/**
 * Prepares `POST /v1/chat/completions`.
 * @throws {RequestError} `invalid_request`, `unsupported`, `model_not_found`, `context_length_exceeded`
 * @throws {EngineError} `invalid_text` when the chat template refuses the messages
 */
export function prepareChat(
  text: ModelText,
  value: Record<string, unknown>,
  context: PrepareContext,
): PreparedGeneration {
  const body = checkBody(chatSchema, value);
  refuseChatExtras(body);
  checkModel(body.model, context);
  if (body.top_logprobs && !body.logprobs) {
    throw new RequestError("invalid_request", "Cannot report top_logprobs: logprobs must be true", {
      param: "top_logprobs",
    });
  }
  const asked = body.max_completion_tokens ?? body.max_tokens ?? undefined;
  const plan = planTools(text, body);
  const prompt = chatPrompt(text, body, { ...context, ...plan });
  const form: AnswerForm = { tools: plan.form, reasoning: reasoningOf(text, prompt.text) };
  const shared = common(text, body, context, plan.grammar);
  return {
    ...shared,
    grammar: shared.grammar && afterReasoning(shared.grammar, form.reasoning),
    form,
    markers: [
      ...(plan.form ? TOOL_FORMATS[plan.form.format].markers : []),
      ...(form.reasoning ? Object.values(THINK) : []),
    ],
    prompts: [withRoom(prompt, { asked, fallback: text.maxNewTokens ?? Infinity, context, param: "messages" })],
    n: body.n ?? 1,
    sampling: sampling(text, body, { context, topLogprobs: body.logprobs ? body.top_logprobs ?? 0 : undefined }),
  };
}

/**
 * Prepares `POST /v1/completions`.
 * @throws {RequestError} `invalid_request`, `unsupported`, `model_not_found`, `context_length_exceeded`
 */
export function prepareCompletion(
  text: ModelText,
  value: Record<string, unknown>,
  context: PrepareContext,
): PreparedGeneration {
  const body = checkBody(completionSchema, value);
  refuseCompletionExtras(body);
  checkModel(body.model, context);
  const asked = body.max_tokens ?? undefined;
  const prompts = completionPrompts(text, body, context);
  const n = body.n ?? 1;
  if (prompts.length * n > MAX_CHOICES) {
    throw new RequestError(
      "invalid_request",
      `Cannot generate: ${prompts.length} prompts × n ${n} exceed ${MAX_CHOICES} choices`,
      { param: "n" },
    );
  }
  return {
    ...common(text, body, context),
    prompts: prompts.map((prompt) => withRoom(prompt, { asked, fallback: 16, context, param: "prompt" })),
    n,
    sampling: sampling(text, body, { context, topLogprobs: body.logprobs ?? undefined }),
  };
}

/**
 * An absent model is the one that is served.
 * @throws {RequestError} `model_not_found`
 */
export function checkModel(model: string | null | undefined, context: PrepareContext): void {
  if (model === undefined || model === null || model === context.modelId) return;
  const given = model.length <= 100 ? `"${model}"` : `a name of ${model.length} characters`;
  throw new RequestError("model_not_found", `Cannot find model ${given}: this service has "${context.modelId}"`, {
    param: "model",
  });
}

type Common = ChatBody | CompletionBody;

function common(text: ModelText, body: Common, context: PrepareContext, calls?: AnswerGrammar) {
  const listedStopTokens = body.stop_token_ids ?? [];
  tokensWithin(listedStopTokens, { ...context, param: "stop_token_ids" });
  const stop = body.stop ?? [];
  const grammar = calls?.param === "tool_choice" ? calls : answerGrammar(body) ?? calls;
  const ends = body.ignore_eos ? [] : text.stopTokens;
  return {
    stream: body.stream ?? false,
    includeUsage: body.stream_options?.include_usage ?? false,
    continuousUsage: body.stream_options?.continuous_usage_stats ?? false,
    returnProgress: body.return_progress ?? false,
    returnTokenIds: body.return_token_ids ?? false,
    form: PLAIN,
    markers: [] as readonly string[],
    attention: requestedAttention(body.attention, context),
    grammar: grammar?.spec,
    grammarParam: grammar?.param,
    // A complete answer allows nothing but its end, also where ends are ignored.
    stopTokens: [...new Set([...(grammar ? text.endTokens : ends), ...listedStopTokens])],
    listedStopTokens,
    stopStrings: typeof stop === "string" ? [stop] : stop,
    includeStopString: body.include_stop_str_in_output ?? false,
    skipSpecialTokens: body.skip_special_tokens ?? true,
    cacheSalt: body.cache_salt ?? "",
    priority: body.priority ?? 0,
  };
}

function sampling(
  text: ModelText,
  body: Common,
  { context, topLogprobs }: { context: PrepareContext; topLogprobs: number | undefined },
): SamplingSettings {
  const minTokens = body.min_tokens ?? 0;
  const maxTokens = ("max_completion_tokens" in body ? body.max_completion_tokens : undefined) ?? body.max_tokens;
  if (minTokens > (maxTokens ?? Infinity)) {
    throw new RequestError(
      "invalid_request",
      `Cannot generate: min_tokens ${minTokens} exceeds max_tokens ${maxTokens}`,
      {
        param: "min_tokens",
      },
    );
  }
  const logitBias = Object.entries(body.logit_bias ?? {}).map(([token, bias]) => [Number(token), bias] as const);
  tokensWithin(logitBias.map(([token]) => token), { ...context, param: "logit_bias" });
  return {
    temperature: body.temperature ?? 1,
    topP: body.top_p ?? 1,
    topK: Math.max(0, body.top_k ?? 0),
    minP: body.min_p ?? 0,
    repetitionPenalty: body.repetition_penalty ?? 1,
    presencePenalty: body.presence_penalty ?? 0,
    frequencyPenalty: body.frequency_penalty ?? 0,
    logitBias,
    seed: seed(body.seed),
    minTokens,
    suppressed: minTokens > 0 ? [...text.stopTokens, ...(body.stop_token_ids ?? [])] : [],
    topLogprobs,
  };
}

/** Clients may send any integer; the sampler takes 32 bits of it. */
function seed(given: number | null | undefined): number {
  if (given === undefined || given === null) return at(crypto.getRandomValues(new Uint32Array(1)), 0);
  return Number(BigInt.asUintN(32, BigInt(given)));
}

interface Room {
  /** What the client asked for. */
  readonly asked: number | undefined;
  /** Without that: so many, or as many as fit. */
  readonly fallback: number;
  readonly context: PrepareContext;
  readonly param: string;
}

function withRoom(prompt: Prompt, { asked, fallback, context, param }: Room): PreparedPrompt {
  const promptTokens = prompt.tokens.length;
  const room = context.contextTokens - promptTokens;
  const wanted = asked ?? 1;
  if (wanted > room) {
    const answer = asked === undefined ? "an answer" : `max_tokens ${asked}`;
    throw new RequestError(
      "context_length_exceeded",
      `Cannot generate: ${promptTokens} prompt tokens and ${answer} exceed the context of ${context.contextTokens}`,
      { param },
    );
  }
  const isMaxTokensOpen = asked === undefined;
  return { tokens: prompt.tokens, maxTokens: asked ?? Math.min(fallback, room), isMaxTokensOpen, echo: prompt.echo };
}

function refuse(field: string, why: string): never {
  throw new RequestError("unsupported", `Cannot honour ${field}: ${why}`, { param: field });
}

function refuseChatExtras(body: ChatBody): void {
  if (body.functions?.length) refuse("functions", "function calls are not supported");
  if (body.modalities?.some((modality) => modality !== "text")) refuse("modalities", "only text is supported");
  if (body.audio !== undefined && body.audio !== null) refuse("audio", "only text is supported");
}

function refuseCompletionExtras(body: CompletionBody): void {
  if (body.suffix) refuse("suffix", "insertion is not supported");
  if (body.best_of && body.best_of > 1) refuse("best_of", `one candidate a choice is supported, ${body.best_of} given`);
  const logprobs = body.logprobs !== undefined && body.logprobs !== null;
  if (body.echo && logprobs) refuse("echo", "log-probabilities of the prompt are not supported");
}
