/** A conversation as it is kept, and what can be done with it. Plain data; every change makes a new one. */

import type { PrefillProgress, Usage } from "../service/chat_stream.ts";
import type { WireMessage } from "../service/service.ts";
import type { Settings } from "./settings.ts";

/** A file or a long text that a question is about. */
export interface Attachment {
  readonly id: string;
  readonly name: string;
  readonly text: string;
}

/** What a person wrote. */
export interface Question {
  readonly role: "user";
  readonly id: string;
  readonly text: string;
  readonly attachments: readonly Attachment[];
}

/** When an answer was asked for and came, in milliseconds of the page's clock. */
export interface AnswerTimes {
  readonly askedAt: number;
  readonly firstTokenAt?: number;
  readonly endedAt?: number;
}

/** What the model wrote. */
export interface Answer {
  readonly role: "assistant";
  readonly id: string;
  readonly text: string;
  readonly reasoning: string;
  readonly tokens: number;
  readonly state: "waiting" | "reading" | "writing" | "done" | "stopped" | "failed";
  /** Of a failed one, for the person. */
  readonly error?: string;
  /** `length`: it was cut. */
  readonly reason?: string;
  readonly prefill?: PrefillProgress;
  readonly usage?: Usage;
  readonly times: AnswerTimes;
}

/** A turn of a conversation. */
export type Message = Question | Answer;

/** A conversation with its settings. */
export interface Conversation {
  readonly id: string;
  readonly changedAt: number;
  readonly messages: readonly Message[];
  readonly settings: Settings;
}

/** An empty one. */
export function newConversation(settings: Settings): Conversation {
  return { id: crypto.randomUUID(), changedAt: Date.now(), messages: [], settings };
}

/** What it is called in lists: its first question. */
export function titleOf({ messages }: Conversation): string {
  const [first] = messages;
  if (first?.role !== "user") return "New conversation";
  const title = first.text.trim().split("\n")[0] || first.attachments[0]?.name || "New conversation";
  return title.length > 60 ? `${title.slice(0, 59)}…` : title;
}

/** Whether an answer is on its way. */
export function isRunning({ state }: Answer): boolean {
  return state === "waiting" || state === "reading" || state === "writing";
}

/** With one answer changed; unchanged when it is not there any more. */
export function withAnswer(conversation: Conversation, id: string, change: Partial<Answer>): Conversation {
  const messages = conversation.messages.map((message) =>
    message.id === id && message.role === "assistant" ? { ...message, ...change } : message
  );
  return { ...conversation, messages, changedAt: Date.now() };
}

/** Cut before a message. */
export function upTo(conversation: Conversation, id: string): Conversation {
  const at = conversation.messages.findIndex((message) => message.id === id);
  return at < 0
    ? conversation
    : { ...conversation, messages: conversation.messages.slice(0, at), changedAt: Date.now() };
}

/**
 * As the model gets it: a document is a message of its own before the question, or, for templates that take no two of a
 * person in a row, a part of it. Answers without text are left out.
 */
export function wireMessages(
  { messages, settings: { system } }: Pick<Conversation, "messages" | "settings">,
  joinsDocuments: boolean,
): WireMessage[] {
  const turns = messages.flatMap((message): WireMessage[] => {
    if (message.role === "assistant") return message.text === "" ? [] : [{ role: "assistant", content: message.text }];
    // Templates trim; what is counted before must be what is sent.
    const texts = [...message.attachments.map(({ text }) => text), message.text].flatMap((text) => text.trim() || []);
    if (joinsDocuments) return [{ role: "user", content: texts.join("\n\n") }];
    return texts.map((content) => ({ role: "user", content }));
  });
  return system.trim() === "" ? turns : [{ role: "system", content: system }, ...turns];
}
