/**
 * Entry of the text thread: takes jobs one by one, answers each with a result or a flattened error.
 * Knows which function does which job; knows nothing of HTTP, and keeps nothing between jobs but the model's text.
 */

import { parseJsonBody } from "../body/json_body.ts";
import { loadModelText, type ModelText } from "./model_text.ts";
import { prepareChat, prepareCompletion, type PrepareContext } from "./prepare.ts";
import { countTokens, prepareMessages } from "./messages_request.ts";
import { prepareResponses } from "./responses_request.ts";
import { flattenError, type FromTextWorker, type TextResults, type ToTextWorker } from "./text_jobs.ts";
import { detokenize, tokenize } from "./tokenize.ts";

/** What `deno check` lacks without the worker library: this file's own end of the channel. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<ToTextWorker>) => void) | null;
  postMessage(message: FromTextWorker, transfer: Transferable[]): void;
}

const scope = globalThis as unknown as WorkerScope;

const JOBS: {
  readonly [Kind in keyof TextResults]: (
    text: ModelText,
    value: Record<string, unknown>,
    context: PrepareContext,
  ) => TextResults[Kind];
} = {
  chat: prepareChat,
  completion: prepareCompletion,
  responses: prepareResponses,
  messages: prepareMessages,
  countTokens,
  tokenize,
  detokenize,
};

let modelText: ModelText | undefined;

scope.onmessage = async ({ data }) => {
  try {
    if (data.kind === "load") {
      modelText = await loadModelText(data.source);
      scope.postMessage({ kind: "loaded" }, []);
      return;
    }
    if (modelText === undefined) throw new Error("A job came before the tokenizer was loaded");
    const result = JOBS[data.job](modelText, parseJsonBody(data.bytes), data.context);
    scope.postMessage({ kind: "done", result }, transferable(result));
  } catch (error) {
    scope.postMessage({ kind: "failed", error: flattenError(error) }, []);
  }
};

function transferable(result: TextResults[keyof TextResults]): Transferable[] {
  if ("json" in result) return [result.json.buffer];
  if ("tokens" in result) return [result.tokens.buffer];
  if (!("prompts" in result)) return [];
  return [...new Set(result.prompts.map((prompt) => prompt.tokens.buffer as ArrayBuffer))];
}
