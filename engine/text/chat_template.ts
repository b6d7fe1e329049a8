/**
 * Messages to one prompt, by the Jinja template of a model directory. The only importer of the Jinja package. Knows
 * roles and text; knows nothing of tokens or HTTP.
 */

import { Template } from "@huggingface/jinja";

import { EngineError } from "../errors.ts";
import { besideModel, readTokenizerConfig } from "../model/checkpoint.ts";
import type { JsonObject } from "../model/json_file.ts";
import { fileExists, readModelFile } from "../model/model_file.ts";

/** One turn of a conversation. */
export interface ChatMessage {
  /** `system`, `user`, `assistant`, or whatever else the template knows. */
  readonly role: string;
  /** What is said; templates often trim it. */
  readonly content: string;
  /** Who speaks, for templates that tell speakers of one role apart. */
  readonly name?: string;
}

/** How a conversation is rendered. */
export interface RenderOptions {
  /** Ends the prompt where the assistant's answer begins. */
  readonly addGenerationPrompt: boolean;
  /** Ends the prompt right after the text of the last message, for the model to go on with it. @default false */
  readonly continueFinalMessage?: boolean;
  /** Further variables of the template, e.g. `enable_thinking`; they cannot replace the messages. */
  /** Functions that may be called, as the template has them. */
  readonly tools?: readonly unknown[];
  readonly kwargs?: Readonly<Record<string, unknown>>;
}

/** Far above any template that exists. */
const MAX_TEMPLATE_BYTES = 1 << 20;

/** The template of one model. Immutable. */
export class ChatTemplate {
  /** The Jinja text. */
  readonly source: string;
  readonly #template: Template;
  readonly #specialTokens: Readonly<Record<string, string>>;

  /**
   * Parses a template.
   *
   * @param template Jinja text
   * @param specialTokens `bos_token` and the like, as the template names them
   * @param source where the template comes from, for messages
   * @throws {EngineError} `invalid_model` when it does not parse
   */
  constructor(template: string, specialTokens: Readonly<Record<string, string>>, source = "chat template") {
    this.source = template;
    this.#specialTokens = specialTokens;
    try {
      this.#template = new Template(template);
    } catch (cause) {
      throw new EngineError("invalid_model", `Cannot read ${source}: ${reasonOf(cause)}`, { cause });
    }
  }

  /**
   * Reads `chat_template.jinja` if there is one (`M.chat_template.jinja` beside `M.gguf`), else `chat_template` of `tokenizer_config.json`: a text, or a list of
   * named ones, of which `default` is taken.
   *
   * @returns undefined when the model has no template, as base models do
   * @throws {EngineError} `invalid_model` naming the file and what was expected
   */
  static async load(model: string): Promise<ChatTemplate | undefined> {
    const config = await readTokenizerConfig(model);
    const path = besideModel(model, "chat_template.jinja");
    if (await fileExists(path)) {
      return new ChatTemplate(
        new TextDecoder().decode(await readModelFile(path, MAX_TEMPLATE_BYTES)),
        specialTokensIn(config),
        path,
      );
    }
    const template = templateIn(config);
    if (template === undefined) return undefined;
    return new ChatTemplate(template, specialTokensIn(config), `${config.source}, chat_template`);
  }

  /**
   * Renders a conversation. Special tokens are part of the text: encode it without adding any.
   *
   * @throws {EngineError} `invalid_text` when the template refuses the messages, in its own words
   */
  render(messages: readonly ChatMessage[], options: RenderOptions): string {
    const { addGenerationPrompt, continueFinalMessage = false, tools } = options;
    const kwargs = { ...options.kwargs, ...(tools && { tools }) };
    if (addGenerationPrompt && continueFinalMessage) {
      throw new EngineError(
        "invalid_text",
        "Cannot render chat: it ends with a new answer or goes on with the last, not both",
      );
    }
    if (!continueFinalMessage) return this.#run(messages, kwargs, addGenerationPrompt);
    // Shows where the text of the last message ends, whatever the template trims or puts after it.
    const marker = crypto.randomUUID();
    const marked = messages.map((message, i) =>
      i === messages.length - 1 ? { ...message, content: message.content + marker } : message
    );
    const [prompt, rest] = this.#run(marked, kwargs, addGenerationPrompt).split(marker);
    if (prompt === undefined || rest === undefined) {
      throw new EngineError(
        "invalid_text",
        "Cannot render chat: the prompt lacks the last message, which was to go on",
      );
    }
    return prompt;
  }

  #run(
    messages: readonly ChatMessage[],
    kwargs: Readonly<Record<string, unknown>>,
    addGenerationPrompt: boolean,
  ): string {
    try {
      return this.#template.render({
        ...this.#specialTokens,
        ...kwargs,
        messages,
        "add_generation_prompt": addGenerationPrompt,
      });
    } catch (cause) {
      throw new EngineError("invalid_text", `Cannot render chat: ${reasonOf(cause)}`, { cause });
    }
  }
}

function templateIn(config: JsonObject): string | undefined {
  if (!Array.isArray(config.value("chat_template"))) return config.string("chat_template");
  const named = (config.array("chat_template") ?? []).map((entry) => config.nested(entry, "chat_template"));
  const chosen = named.find((entry) => entry.value("name") === "default") ?? named[0];
  return chosen?.string("template");
}

/** `bos_token` and the like: texts, or objects with the text as `content`. */
function specialTokensIn(config: JsonObject): Record<string, string> {
  const tokens: Record<string, string> = {};
  for (const [field, value] of config.entries()) {
    if (!/^[a-z]+_token$/.test(field) || value === null || typeof value === "boolean") continue;
    const text = typeof value === "string" ? value : config.nested(value, field).string("content");
    if (text !== undefined) tokens[field] = text;
  }
  return tokens;
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
