/** Files and long pasted texts that a question is about. */

import type { Attachment } from "./conversation.ts";

/** A request of the service holds 32 MiB; a document must leave room for what JSON adds. */
const MAX_BYTES = 24 * 2 ** 20;

/** A pasted text this long becomes a document instead of filling the field. */
export const MIN_PASTED = 4000;

/** The files that were chosen, as far as they can be used. */
export interface ReadFiles {
  readonly attachments: readonly Attachment[];
  /** Why others cannot be used, for the person. */
  readonly refused: readonly string[];
}

/** Reads files as UTF-8 text. */
export async function readFiles(files: Iterable<File>): Promise<ReadFiles> {
  const attachments: Attachment[] = [];
  const refused: string[] = [];
  for (const file of files) {
    if (file.size > MAX_BYTES) {
      refused.push(`${file.name} has ${Math.ceil(file.size / 2 ** 20)} MB, at most ${MAX_BYTES / 2 ** 20} are taken`);
      continue;
    }
    const text = await file.text();
    if (text.includes("\0")) refused.push(`${file.name} is not a text`);
    else if (text.trim() === "") refused.push(`${file.name} is empty`);
    else attachments.push(attachmentOf(file.name, text));
  }
  return { attachments, refused };
}

/** A document of a text that is there already. */
export function attachmentOf(name: string, text: string): Attachment {
  return { id: crypto.randomUUID(), name, text };
}
