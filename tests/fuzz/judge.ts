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
  const form = formOf(shot.path);
  if (status >= 400) complaints.push(...errorComplaints(text, form));
  else if (type.startsWith("text/event-stream")) complaints.push(...streamComplaints(text, form));
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

/** Whose errors and streams a path speaks. */
type Form = "chat" | "responses" | "messages";

function formOf(path: string): Form {
  if (path.startsWith("/v1/messages")) return "messages";
  return path.startsWith("/v1/responses") ? "responses" : "chat";
}

/** OpenAI's form: message, type, param and code, the latter two possibly null; Anthropic's: type and message in an `error`. */
function errorComplaints(text: string, form: Form): readonly string[] {
  const body = parsed(text) as { readonly type?: unknown; readonly error?: unknown } | undefined;
  const error = body?.error;
  if (typeof error !== "object" || error === null) return ["an error that is no OpenAI error"];
  if (form === "messages" && body?.type !== "error") return ["an error that is no Anthropic error"];
  const { message, type, param, code } = error as Record<string, unknown>;
  const complaints: string[] = [];
  if (typeof message !== "string" || message.length < 10) complaints.push("an error without a message");
  else {
    if (message.length > 600) complaints.push(`an error message of ${message.length} characters`);
    if (message.includes(SECRET)) complaints.push("an error that repeats the prompt");
  }
  if (typeof type !== "string") complaints.push("an error without a type");
  if (form !== "messages" && (!isTextOrNull(param) || !isTextOrNull(code))) {
    complaints.push("an error without param and code");
  }
  return complaints;
}

/** What ends a stream that ran to its end. */
const ENDS = {
  chat: (last: string) => last === "[DONE]",
  responses: (last: string) => /"type":"response\.(completed|incomplete|failed)"/.test(last),
  messages: (last: string) => /"type":"message_stop"/.test(last),
} as const satisfies Record<Form, (last: string) => boolean>;

function streamComplaints(text: string, form: Form): readonly string[] {
  const events = [...text.matchAll(/^data: (.*)$/gm)].map(([, data]) => data ?? "");
  const last = events.at(-1) ?? "";
  if (!ENDS[form](last)) {
    const isError = /"error"/.test(last) && parsed(last) !== undefined;
    return [
      isError ? `a stream that failed: ${last.slice(0, 200)}` : "a stream that ends without [DONE] or an error",
    ];
  }
  const whole = form === "chat" ? events.slice(0, -1) : events;
  return whole.some((event) => parsed(event) === undefined) ? ["an event that is no JSON"] : [];
}

function jsonComplaints(text: string): readonly string[] {
  return parsed(text) === undefined ? ["an answer that is no JSON"] : [];
}
