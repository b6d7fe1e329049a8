/**
 * Needles: one fact hidden in a long text, and a question about it. Measures how often the greedy answer is right under
 * dense and sparse attention, the question either prefilled with the text or fed row by row as decoding would.
 */

import { at } from "../../kernels/at.ts";
import { EngineError } from "../errors.ts";
import type { Session, SessionHost } from "./hand_session.ts";
import { drawnToken, type SparseSettings } from "../span.ts";
import { ChatTemplate } from "../text/chat_template.ts";
import { Tokenizer } from "../text/tokenizer.ts";

/** One case; further fields of a case file are ignored. */
export interface NeedleCase {
  readonly id: string;
  /** The long text, sent as a message of its own. */
  readonly text: string;
  readonly question: string;
  readonly answer: string;
}

/** How the rows after the text attend. */
export interface NeedleVariant {
  readonly name: string;
  /** Undefined: dense. */
  readonly sparse: SparseSettings | undefined;
  /** Whether the question's rows are decoded one by one, under the variant's attention, instead of prefilled. */
  readonly questionDecoded: boolean;
}

/** The answer of one variant. */
export interface NeedleOutcome {
  readonly variant: string;
  readonly correct: boolean;
  readonly given: string;
}

/** What turns messages into tokens and back. */
export interface TextModel {
  readonly tokenizer: Tokenizer;
  readonly template: ChatTemplate;
}

/**
 * Loads what a model directory says about text.
 * @throws {EngineError} `invalid_model`; `unsupported_model` when it has no chat template
 */
export async function loadTextModel(directory: string): Promise<TextModel> {
  const template = await ChatTemplate.load(directory);
  if (template === undefined) {
    throw new EngineError("unsupported_model", `Cannot ask questions: ${directory} has no chat template`);
  }
  return { tokenizer: await Tokenizer.load(directory), template };
}

/** The longest answer that is waited for. */
const ANSWER_TOKENS = 60;

/**
 * Reads cases from JSON lines with `id`, `prompt_text`, `question`, `answer`.
 * @throws {EngineError} `invalid_text` naming the line
 */
export function parseNeedles(jsonLines: string): NeedleCase[] {
  return jsonLines.split("\n").flatMap((line, i) => (line.trim() === "" ? [] : [parseNeedle(line, i + 1)]));
}

function parseNeedle(line: string, number: number): NeedleCase {
  const refuse = (why: string, cause?: unknown) =>
    new EngineError("invalid_text", `Cannot read needle case in line ${number}: ${why}`, { cause });
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw refuse("it is not JSON", cause);
  }
  const fields = new Map(typeof value === "object" && value !== null ? Object.entries(value) : []);
  const text = (name: string): string => {
    const field = fields.get(name);
    if (typeof field !== "string") throw refuse(`${name} must be a string`);
    return field;
  };
  return { id: text("id"), text: text("prompt_text"), question: text("question"), answer: text("answer") };
}

/** Tokens of the text alone, and of the question with everything up to the answer. */
export function needleTokens(
  { tokenizer, template }: TextModel,
  needle: NeedleCase,
): { text: Uint32Array; question: Uint32Array } {
  const textMessage = { role: "user", content: needle.text };
  const text = tokenizer.encode(template.render([textMessage], { addGenerationPrompt: false }));
  const messages = [textMessage, { role: "user", content: needle.question }];
  const all = tokenizer.encode(template.render(messages, { addGenerationPrompt: true }));
  if (text.some((token, i) => all[i] !== token)) {
    throw new EngineError(
      "invalid_text",
      `Cannot split needle ${needle.id}: the text's tokens change with what follows it`,
    );
  }
  return { text, question: all.subarray(text.length) };
}

/** Answers one case under every variant; the text is prefilled once and its pages shared. */
export async function runNeedle(
  host: SessionHost,
  model: TextModel,
  { needle, variants, stop }: { needle: NeedleCase; variants: readonly NeedleVariant[]; stop: readonly number[] },
): Promise<NeedleOutcome[]> {
  const { text, question } = needleTokens(model, needle);
  const shared = host.open();
  const outcomes: NeedleOutcome[] = [];
  try {
    await shared.prefill(text, "none");
    for (const variant of variants) {
      const session = host.share(shared, text.length, variant.sparse && { sparse: variant.sparse });
      try {
        const tokens = await answer(session, { text, question, variant, stop });
        const given = model.tokenizer.decode(Uint32Array.from(tokens), { skipSpecialTokens: true }).trim();
        outcomes.push({ variant: variant.name, given, correct: given === needle.answer.trim() });
      } finally {
        await session.close();
      }
    }
  } finally {
    await shared.close();
  }
  return outcomes;
}

async function answer(
  session: Session,
  { text, question, variant, stop }: {
    text: Uint32Array;
    question: Uint32Array;
    variant: NeedleVariant;
    stop: readonly number[];
  },
): Promise<number[]> {
  const attention = variant.sparse === undefined ? "dense" : "sparse";
  const rest = text.subarray(session.length);
  if (!variant.questionDecoded) {
    const first = drawnToken(await session.prefill([...rest, ...question]));
    return await session.generate(first, { attention, maxTokens: ANSWER_TOKENS, stop });
  }
  if (rest.length > 0) await session.prefill(rest, "none");
  for (const token of question.subarray(0, -1)) await session.decode(token, attention, "none");
  const first = drawnToken(await session.decode(at(question, question.length - 1), attention));
  return await session.generate(first, { attention, maxTokens: ANSWER_TOKENS, stop });
}
