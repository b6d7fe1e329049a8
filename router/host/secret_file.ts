/** The secret that a router shares with workers started elsewhere. Knows a file; knows nothing of handshakes. */

import { UsageError } from "../errors.ts";

/** As the worker has it. */
const MIN_CHARACTERS = 16;

/**
 * The file's first line.
 * @throws {UsageError} when the file cannot be read, or holds too little
 */
export async function readSecretFile(path: string): Promise<string> {
  const secret = firstLine(await readText(path));
  if (secret.length >= MIN_CHARACTERS) return secret;
  throw new UsageError(
    `Cannot use --secret-file: its first line has ${secret.length} characters, at least ${MIN_CHARACTERS} are needed`,
  );
}

async function readText(path: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Error) throw new UsageError(`Cannot read --secret-file: ${error.message}`);
    throw error;
  }
}

function firstLine(text: string): string {
  return text.split("\n", 1).join("").trim();
}
