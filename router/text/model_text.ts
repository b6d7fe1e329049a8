/**
 * The text side of a model: tokenizer, chat template, and the tokens that end an answer.
 * Knows where each comes from; knows nothing of requests.
 */

import { readGenerationDefaults } from "../../engine/model/generation_defaults.ts";
import type { ToolFormatName } from "../answer/answer_part.ts";
import { readModelConfig } from "../../engine/model/model_config.ts";
import { ChatTemplate } from "../../engine/text/chat_template.ts";
import { Tokenizer } from "../../engine/text/tokenizer.ts";

/** What it takes to turn requests into tokens. */
export interface ModelText {
  readonly tokenizer: Tokenizer;
  /** Undefined: the model has no chat template. */
  readonly template: ChatTemplate | undefined;
  /** How calls are written; undefined: as the template says. */
  readonly toolFormat: ToolFormatName | undefined;
  /** Drawing one of them ends an answer. */
  readonly stopTokens: readonly number[];
  /** The longest answer of a chat that does not say; undefined: what the context has room for. */
  readonly maxNewTokens: number | undefined;
  /** What the model itself ends an answer with: the only tokens that can follow an answer with a grammar. */
  readonly endTokens: readonly number[];
}

/** Where the text side of a model is, and what is to be different from what its files say. */
export interface ModelTextSource {
  readonly directory: string;
  /** In place of the model's own. @default those */
  readonly stopTokens?: readonly number[] | undefined;
  /** How calls are written. @default as the template says */
  readonly toolFormat?: ToolFormatName | undefined;
}

/**
 * Reads a model's text files.
 * @throws {EngineError} `invalid_model`, `unsupported_model`
 */
export async function loadModelText({ directory, stopTokens, toolFormat }: ModelTextSource): Promise<ModelText> {
  const tokenizer = await Tokenizer.load(directory);
  const template = await ChatTemplate.load(directory);
  const { eosTokens } = await readModelConfig(directory);
  const { maxNewTokens } = await readGenerationDefaults(directory);
  return { tokenizer, template, toolFormat, stopTokens: stopTokens ?? eosTokens, endTokens: eosTokens, maxNewTokens };
}
