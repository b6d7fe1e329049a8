/**
 * The answers of `/tokenize` and `/detokenize`. Tokens are written out block by block as the client reads: with their
 * texts they take twelve times the memory of the request, and as one JSON text they would block the loop.
 */

import type { Tokenizer } from "../../engine/text/tokenizer.ts";
import type { DetokenizeAnswer, TokenizeAnswer } from "./tokenize.ts";

/** About a millisecond of work. */
const BLOCK_TOKENS = 4096;

const JSON_HEADERS = { "content-type": "application/json" } as const;

/** The answer of `/tokenize`, in the shape of vLLM or of llama.cpp. */
export function tokenizeResponse(answer: TokenizeAnswer, tokenizer: Pick<Tokenizer, "tokenBytes">): Response {
  const blocks = tokenizeBlocks(answer, tokenizer);
  if (answer.tokens.length <= BLOCK_TOKENS) return new Response([...blocks].join(""), { headers: JSON_HEADERS });
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      const { done, value } = blocks.next();
      if (done) controller.close();
      else controller.enqueue(encoder.encode(value));
    },
    // Nothing is made ahead of the reader.
  }, { highWaterMark: 0 });
  return new Response(body, { headers: JSON_HEADERS });
}

/** The answer of `/detokenize`. */
export function detokenizeResponse({ json }: DetokenizeAnswer): Response {
  return new Response(json, { headers: JSON_HEADERS });
}

function* tokenizeBlocks(
  { shape, tokens, withPieces, contextTokens }: TokenizeAnswer,
  tokenizer: Pick<Tokenizer, "tokenBytes">,
): Generator<string> {
  if (shape === "llama.cpp") {
    const piece = remembered((id) => JSON.stringify({ id, piece: pieceOf(tokenizer.tokenBytes(id)) }));
    yield `{"tokens":[`;
    yield* list(tokens, withPieces ? piece : String);
    yield "]}";
    return;
  }
  yield `{"count":${tokens.length},"max_model_len":${contextTokens},"tokens":[`;
  yield* list(tokens, String);
  if (withPieces) {
    yield `],"token_strs":[`;
    yield* list(tokens, remembered((id) => JSON.stringify(LENIENT.decode(tokenizer.tokenBytes(id)))));
  }
  yield "]}";
}

const LENIENT = new TextDecoder("utf-8", { ignoreBOM: true });
const STRICT = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });

/** Elements of a JSON list, comma-separated, in blocks. */
function* list(tokens: Uint32Array, write: (id: number) => string): Generator<string> {
  for (let at = 0; at < tokens.length; at += BLOCK_TOKENS) {
    const block = Array.from(tokens.subarray(at, at + BLOCK_TOKENS), write).join(",");
    yield at === 0 ? block : `,${block}`;
  }
}

/** The same token looks the same everywhere; a vocabulary bounds what is kept. */
function remembered(write: (id: number) => string): (id: number) => string {
  const known = new Map<number, string>();
  return (id) => {
    const old = known.get(id);
    if (old !== undefined) return old;
    const text = write(id);
    known.set(id, text);
    return text;
  };
}

/** llama.cpp: text where the bytes are text, else the bytes. */
function pieceOf(bytes: Uint8Array): string | readonly number[] {
  try {
    return STRICT.decode(bytes);
  } catch {
    return [...bytes];
  }
}
