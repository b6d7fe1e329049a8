/**
 * `POST /tokenize` and `/detokenize` in the shapes of vLLM and of llama.cpp, which share the paths.
 * Runs in the text thread; knows text and tokens, nothing of HTTP.
 */

import { RequestError } from "../errors.ts";
import type { ModelText } from "../text/model_text.ts";
import { checkModel, type PrepareContext } from "../text/prepare.ts";
import { chatPrompt, tokensWithin } from "../text/prompt.ts";
import { checkBody, detokenizeSchema, tokenizeSchema } from "./schemas.ts";

/** vLLM's shape for `prompt` and `messages`; llama.cpp's for `content`. */
export type TokenizeAnswer =
  | {
    readonly count: number;
    readonly max_model_len: number;
    readonly tokens: readonly number[];
    readonly token_strs?: readonly string[];
  }
  | { readonly tokens: readonly (number | { readonly id: number; readonly piece: string | readonly number[] })[] };

/** Both projects' field, with the same text. */
export interface DetokenizeAnswer {
  readonly prompt: string;
  readonly content: string;
}

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
  if (typeof content === "string") {
    const tokens = text.tokenizer.encode(content, { addSpecialTokens: body.add_special ?? false });
    const pieces = (id: number) => ({ id, piece: piece(text.tokenizer.tokenBytes(id)) });
    return {
      tokens: Array.from<number, number | ReturnType<typeof pieces>>(tokens, body.with_pieces ? pieces : (id) => id),
    };
  }
  const tokens = messages
    ? chatPrompt(text, { ...body, messages }, context.vocabSize).tokens
    : text.tokenizer.encode(prompt ?? "", { addSpecialTokens: body.add_special_tokens ?? true });
  return {
    count: tokens.length,
    max_model_len: context.contextTokens,
    tokens: [...tokens],
    ...(body.return_token_strs ? { token_strs: Array.from(tokens, (id) => text.tokenizer.tokenText(id)) } : {}),
  };
}

/** @throws {RequestError} `invalid_request`, `model_not_found` */
export function detokenize(text: ModelText, value: Record<string, unknown>, context: PrepareContext): DetokenizeAnswer {
  const body = checkBody(detokenizeSchema, value);
  checkModel(body.model, context);
  const content = text.tokenizer.decode(tokensWithin(Uint32Array.from(body.tokens), { ...context, param: "tokens" }));
  return { prompt: content, content };
}

/** llama.cpp: text where the bytes are text, else the bytes. */
function piece(bytes: Uint8Array): string | readonly number[] {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return [...bytes];
  }
}
