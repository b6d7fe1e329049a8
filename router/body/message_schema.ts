/** What one message of a conversation may say. */

import { z } from "@hono/zod-openapi";

import { list } from "./bounded_list.ts";

/** Messages of a conversation, and parts of one of them. */
export const MAX_MESSAGES = 16_384;

const textPart = z.object({ type: z.literal("text"), text: z.string() });

/** What an assistant said in place of an answer; comes back with the conversation. */
const refusalPart = z.object({ type: z.literal("refusal"), refusal: z.string() });

const contentPart = z.discriminatedUnion("type", [textPart, refusalPart]);

const toolCall = z.object({
  id: z.string().nullish(),
  type: z.literal("function").nullish(),
  function: z.object({ name: z.string(), arguments: z.string().nullish() }),
});

/** A message as a chat request has it. */
export const message = z.object({
  role: z.enum(["developer", "system", "user", "assistant", "tool"]),
  content: z.union([z.string(), list(contentPart, { max: MAX_MESSAGES })]).nullish(),
  refusal: z.string().nullish(),
  name: z.string().nullish(),
  tool_call_id: z.string().nullish(),
  tool_calls: list(toolCall, { max: 128 }).nullish(),
  reasoning_content: z.string().nullish(),
}).refine(saysSomething, { path: ["content"], message: "expected a string or text parts" }).openapi("Message");

/** A tool may return nothing; an assistant may only have reasoned, called or refused. */
function saysSomething(
  { role, content, refusal, reasoning_content: reasoning, tool_calls: calls }: {
    readonly role: string;
    readonly content?: string | readonly unknown[] | null | undefined;
    readonly refusal?: string | null | undefined;
    readonly reasoning_content?: string | null | undefined;
    readonly tool_calls?: readonly unknown[] | null | undefined;
  },
): boolean {
  if (typeof content === "string" || (content?.length ?? 0) > 0 || (calls?.length ?? 0) > 0) return true;
  return role === "tool" ? content !== null && content !== undefined : Boolean(refusal || reasoning);
}

/** One message of a valid chat request. */
export type MessageBody = z.infer<typeof message>;
