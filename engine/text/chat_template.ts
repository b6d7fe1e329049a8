/**
 * Messages to one prompt, by the Jinja template of a model directory. The only importer of the Jinja package. Knows
 * roles and text; knows nothing of tokens or HTTP.
 */

import { messageOf } from "../../kernels/errors.ts";
import { Template } from "@huggingface/jinja";

import { EngineError } from "../errors.ts";
import { besideModel, readTokenizerConfig } from "../model/checkpoint.ts";
import type { JsonObject } from "../model/json_file.ts";
import { fileExists, readModelFile } from "../model/model_file.ts";

/** One turn of a conversation. */
export interface ChatMessage {
  /** `system`, `user`, `assistant`, or whatever else the template knows. */
  readonly role: string;
  /** The text; templates often trim it. */
  readonly content: string;
  /** Name of the speaker, for templates that distinguish speakers of one role. */
  readonly name?: string;
}

/** How a conversation is rendered. */
export interface RenderOptions {
  /** Ends the prompt where the assistant's answer begins. */
  readonly addGenerationPrompt: boolean;
  /** Ends the prompt right after the text of the last message, for the model to go on with it. @default false */
  readonly continueFinalMessage?: boolean;
  /** Functions that may be called, as the template has them. */
  readonly tools?: readonly unknown[];
  /** Further variables of the template, e.g. `enable_thinking`; they cannot replace the messages. */
  readonly kwargs?: Readonly<Record<string, unknown>>;
}

/** Far above any template that exists. */
const MAX_TEMPLATE_BYTES = 1 << 20;

/** The template of one model. Immutable. */
export class ChatTemplate {
  /** The Jinja text. */
  readonly source: string;
  /** What renders a conversation with tools: the one named `tool_use` of a model that has several, else this one. */
  readonly forTools: ChatTemplate;
  readonly #template: Template;
  readonly #specialTokens: Readonly<Record<string, string>>;

  /**
   * Parses a template.
   *
   * @param template Jinja text
   * @param specialTokens `bos_token` and the like, as the template names them
   * @param options.source where the template comes from, for messages
   * @param options.forTools another one for conversations with tools
   * @throws {EngineError} `invalid_model` when it does not parse
   */
  constructor(
    template: string,
    specialTokens: Readonly<Record<string, string>>,
    { source = "chat template", forTools }: { readonly source?: string; readonly forTools?: ChatTemplate } = {},
  ) {
    this.source = template;
    this.forTools = forTools ?? this;
    this.#specialTokens = specialTokens;
    try {
      this.#template = new Template(template);
    } catch (cause) {
      throw new EngineError("invalid_model", `Cannot read ${source}: ${messageOf(cause)}`, { cause });
    }
  }

  /**
   * Reads `chat_template.jinja` if there is one (`M.chat_template.jinja` beside `M.gguf`), else `chat_template` of
   * `tokenizer_config.json`: a text, or a list of named ones, of which `default` is taken, and `tool_use` for tools.
   *
   * @returns undefined when the model has no template, as base models do
   * @throws {EngineError} `invalid_model` naming the file and what was expected
   */
  static async load(model: string): Promise<ChatTemplate | undefined> {
    const config = await readTokenizerConfig(model);
    const path = besideModel(model, "chat_template.jinja");
    if (await fileExists(path)) {
      const text = new TextDecoder().decode(await readModelFile(path, MAX_TEMPLATE_BYTES));
      return new ChatTemplate(text, specialTokensIn(config), { source: path });
    }
    const { usual, toolUse } = templatesIn(config);
    if (usual === undefined) return undefined;
    const source = `${config.source}, chat_template`;
    const tokens = specialTokensIn(config);
    if (toolUse === undefined) return new ChatTemplate(usual, tokens, { source });
    const forTools = new ChatTemplate(toolUse, tokens, { source: `${source} tool_use` });
    return new ChatTemplate(usual, tokens, { source, forTools });
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
      throw new EngineError("invalid_text", `Cannot render chat: ${messageOf(cause)}`, { cause });
    }
  }
}

function templatesIn(config: JsonObject): { usual: string | undefined; toolUse: string | undefined } {
  if (!Array.isArray(config.value("chat_template"))) {
    return { usual: config.string("chat_template"), toolUse: undefined };
  }
  const entries = (config.array("chat_template") ?? []).map((entry) => config.nested(entry, "chat_template"));
  const named = (name: string) => entries.find((entry) => entry.value("name") === name);
  return {
    usual: (named("default") ?? entries[0])?.string("template"),
    toolUse: named("tool_use")?.string("template"),
  };
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
