/** What is wrong with an answer, whatever was asked: server errors, errors in no known form, leaks, torn streams. */

import { SECRET, type Shot } from "./shots.ts";

/** An answer, read to its end. */
export interface Received {
  readonly status: number;
  readonly type: string;
  readonly text: string;
}

/** What an answer shows only when something inside leaks out. */
const LEAKS = [/file:\/\//, /node_modules/, /\bnpm:/, /\.ts:\d+/, /^\s+at .+\(/m, /\bext:\w/, /Deno\.errors/];

/** @returns complaints; none when the answer is a sound one */
export function judge(shot: Shot, answer: Received): readonly string[] {
  const complaints: string[] = [];
  const { status, type, text } = answer;
  if (status >= 500) complaints.push(`status ${status}`);
  const asked = new TextDecoder().decode(shot.body);
  for (const leak of LEAKS) if (leak.test(text) && !leak.test(asked)) complaints.push(`leaks ${leak.source}`);
  if (status >= 400) complaints.push(...errorComplaints(text));
  else if (type.startsWith("text/event-stream")) complaints.push(...streamComplaints(text));
  else complaints.push(...jsonComplaints(text));
  return complaints;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const isTextOrNull = (value: unknown) => value === null || typeof value === "string";

/** OpenAI's form: message, type, param and code, the latter two possibly null. */
function errorComplaints(text: string): readonly string[] {
  const error = (parsed(text) as { readonly error?: unknown } | undefined)?.error;
  if (typeof error !== "object" || error === null) return ["an error that is no OpenAI error"];
  const { message, type, param, code } = error as Record<string, unknown>;
  const complaints: string[] = [];
  if (typeof message !== "string" || message.length < 10) complaints.push("an error without a message");
  else {
    if (message.length > 600) complaints.push(`an error message of ${message.length} characters`);
    if (message.includes(SECRET)) complaints.push("an error that repeats the prompt");
  }
  if (typeof type !== "string") complaints.push("an error without a type");
  if (!isTextOrNull(param) || !isTextOrNull(code)) complaints.push("an error without param and code");
  return complaints;
}

function streamComplaints(text: string): readonly string[] {
  const events = text.split("\n\n").filter((event) => event.startsWith("data: ")).map((event) => event.slice(6));
  const last = events.at(-1);
  if (last !== "[DONE]") {
    const isError = last !== undefined && errorComplaints(last).length === 0;
    return [isError ? `a stream that failed: ${last.slice(0, 200)}` : "a stream that ends without [DONE] or an error"];
  }
  return events.slice(0, -1).some((event) => parsed(event) === undefined) ? ["an event that is no JSON"] : [];
}

function jsonComplaints(text: string): readonly string[] {
  return parsed(text) === undefined ? ["an answer that is no JSON"] : [];
}
