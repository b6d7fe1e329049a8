/**
 * `POST /tokenize` and `/detokenize` in the shapes of vLLM and of llama.cpp, which share the paths.
 * Runs in the text thread; knows text and tokens, nothing of HTTP.
 */

import { RequestError } from "../errors.ts";
import type { ModelText } from "./model_text.ts";
import { checkModel, type PrepareContext } from "./prepare.ts";
import { chatPrompt, checkChars, tokensWithin } from "./prompt.ts";
import { checkBody, detokenizeSchema, tokenizeSchema } from "../body/schemas.ts";

/** Tokens, and how the client wants to read them; `tokenize_answer.ts` writes them out. */
export interface TokenizeAnswer {
  /** vLLM's for `prompt` and `messages`, llama.cpp's for `content`. */
  readonly shape: "vllm" | "llama.cpp";
  readonly tokens: Uint32Array<ArrayBuffer>;
  /** Whether each token's text is asked for. */
  readonly withPieces: boolean;
  readonly contextTokens: number;
}

/** The text of tokens, as the JSON of the answer: it is as long as the request, and serialized off the router's loop. */
export interface DetokenizeAnswer {
  /** Both projects' field, with the same text. */
  readonly json: Uint8Array<ArrayBuffer>;
}

/** Texts above this are longer than any context; their tokens would take several times their memory. */
const MAX_TOKENIZE_CHARS = 8 << 20;

/** Tokens of one detokenization; each becomes a few bytes, twice. */
const MAX_DETOKENIZE_TOKENS = 4 << 20;

/** @throws {RequestError} `invalid_request`, `model_not_found` */
export function tokenize(text: ModelText, value: Record<string, unknown>, context: PrepareContext): TokenizeAnswer {
  const body = checkBody(tokenizeSchema, value);
  checkModel(body.model, context);
  const { prompt, messages, content } = body;
  const given = [prompt, messages, content].filter((field) => field !== undefined && field !== null);
  if (given.length !== 1) {
    throw new RequestError(
      "invalid_request",
      `Cannot tokenize: expected one of prompt, messages or content, ${given.length} given`,
    );
  }
  const { contextTokens, vocabSize } = context;
  if (typeof content === "string") {
    const tokens = encode(text, content, { addSpecialTokens: body.add_special ?? false, param: "content" });
    return { shape: "llama.cpp", tokens, withPieces: body.with_pieces ?? false, contextTokens };
  }
  const tokens = messages
    ? chatPrompt(text, { ...body, messages }, { vocabSize, maxChars: MAX_TOKENIZE_CHARS }).tokens
    : encode(text, prompt ?? "", { addSpecialTokens: body.add_special_tokens ?? true, param: "prompt" });
  return { shape: "vllm", tokens, withPieces: body.return_token_strs ?? false, contextTokens };
}

function encode(
  { tokenizer }: ModelText,
  given: string,
  { addSpecialTokens, param }: { readonly addSpecialTokens: boolean; readonly param: string },
): Uint32Array<ArrayBuffer> {
  checkChars(given, { max: MAX_TOKENIZE_CHARS, param });
  return tokenizer.encode(given, { addSpecialTokens });
}

/** @throws {RequestError} `invalid_request`, `model_not_found` */
export function detokenize(text: ModelText, value: Record<string, unknown>, context: PrepareContext): DetokenizeAnswer {
  const body = checkBody(detokenizeSchema, value);
  checkModel(body.model, context);
  if (body.tokens.length > MAX_DETOKENIZE_TOKENS) {
    throw new RequestError(
      "invalid_request",
      `Cannot detokenize: at most ${MAX_DETOKENIZE_TOKENS} tokens are taken, ${body.tokens.length} given`,
      { param: "tokens" },
    );
  }
  const content = text.tokenizer.decode(tokensWithin(Uint32Array.from(body.tokens), { ...context, param: "tokens" }));
  return { json: new TextEncoder().encode(JSON.stringify({ prompt: content, content })) };
}
