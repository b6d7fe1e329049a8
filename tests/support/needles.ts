/** Long texts with facts hidden in them, and questions about the facts, for the embedded model. */

import { FIXTURES } from "./model_directory.ts";

/** A case of `needles.jsonl`. */
export interface Needle {
  readonly id: string;
  /** Of the rendered prompt. */
  readonly tokens: number;
  readonly "prompt_text": string;
  readonly question: string;
  readonly answer: string;
}

/** The case of this id. */
export async function needle(id: string): Promise<Needle> {
  const lines = (await Deno.readTextFile(`${FIXTURES}tide-10m/needles.jsonl`)).split("\n");
  const line = lines.find((line) => line.startsWith(`{"id": "${id}"`));
  if (line === undefined) throw new Error(`Cannot find needle ${id}`);
  return JSON.parse(line);
}

/** The text and a question about it, as the embedded model wants them: two messages. */
export function aboutText(text: string, question: string): { role: "user"; content: string }[] {
  return [{ role: "user", content: text }, { role: "user", content: question }];
}
