/** Asks for answers and writes them into their conversations as they come; one at a time, which can be stopped. */

import { Observable } from "../frame/observable.ts";
import { type ChatEvent, streamChat } from "../service/chat_stream.ts";
import type { Service, WireMessage } from "../service/service.ts";
import { type Answer, type Attachment, type Conversation, upTo, wireMessages, withAnswer } from "./conversation.ts";
import type { Conversations } from "./conversations.ts";
import type { PromptSize } from "./prompt_size.ts";
import { requestFields } from "./settings.ts";

/** Views follow an answer this often; tokens may come much faster. */
const SHOW_EVERY_MS = 50;

/** What is called while an answer is on its way. */
export interface AnswerListener {
  /** The response has a name: its sequence can be watched. */
  onNamed(answer: string, response: string, messages: readonly WireMessage[]): void;
  /** A piece of text, and the tokens it came with. */
  onText(answer: string, text: string, tokens: number): void;
  /** It was refused or broke off: the service may be gone. */
  onFailed(): void;
}

/** The one answer that is on its way. */
interface Running {
  readonly conversation: string;
  readonly answer: string;
  readonly abort: AbortController;
}

/** Runs answers. */
export class Answering {
  /** Id of the answer that is on its way. */
  readonly running: Observable<Running | undefined> = new Observable<Running | undefined>(undefined);
  readonly #service: Service;
  readonly #conversations: Conversations;
  readonly #sizes: PromptSize;
  readonly #listener: AnswerListener;

  constructor(
    service: Service,
    { conversations, sizes, listener }: {
      readonly conversations: Conversations;
      readonly sizes: PromptSize;
      readonly listener: AnswerListener;
    },
  ) {
    this.#service = service;
    this.#conversations = conversations;
    this.#sizes = sizes;
    this.#listener = listener;
  }

  /** Adds a question to the open conversation and answers it. */
  async ask(text: string, attachments: readonly Attachment[]): Promise<void> {
    const { open } = this.#conversations;
    const question = { role: "user", id: crypto.randomUUID(), text, attachments } as const;
    open.set({ ...open.value, messages: [...open.value.messages, question] });
    await this.#answer(open.value);
  }

  /** Answers again: the answer and what follows it are replaced. */
  async retry(answer: string): Promise<void> {
    const { open } = this.#conversations;
    open.set(upTo(open.value, answer));
    await this.#answer(open.value);
  }

  /** Asks a question in other words: what follows it is replaced. */
  async edit(question: string, text: string): Promise<void> {
    const { open } = this.#conversations;
    const old = open.value.messages.find(({ id }) => id === question);
    if (old?.role !== "user") return;
    open.set(upTo(open.value, question));
    await this.ask(text, old.attachments);
  }

  /** Ends the answer that is on its way; what there is of it stays. */
  stop(): void {
    this.running.value?.abort.abort();
  }

  async #answer(conversation: Conversation): Promise<void> {
    this.stop();
    const answer: Answer = {
      role: "assistant",
      id: crypto.randomUUID(),
      text: "",
      reasoning: "",
      tokens: 0,
      state: "waiting",
      times: { askedAt: Date.now() },
    };
    const { id } = conversation;
    this.#conversations.change(id, (now) => ({ ...now, messages: [...now.messages, answer] }));
    const running = { conversation: id, answer: answer.id, abort: new AbortController() };
    this.running.set(running);
    await this.#conversations.keep(id);
    try {
      await this.#stream(conversation, answer, running.abort.signal);
    } finally {
      if (this.running.value === running) this.running.set(undefined);
      await this.#conversations.keep(id);
    }
  }

  async #stream(conversation: Conversation, start: Answer, signal: AbortSignal): Promise<void> {
    let answer = start;
    let shown: ReturnType<typeof setTimeout> | undefined;
    const show = () => {
      clearTimeout(shown);
      shown = undefined;
      this.#conversations.change(conversation.id, (now) => withAnswer(now, answer.id, answer));
    };
    try {
      const messages = wireMessages(conversation, await this.#sizes.joinsDocuments());
      const body = { messages, ...requestFields(conversation.settings) };
      for await (const event of streamChat(this.#service, body, signal)) {
        answer = this.#taken(answer, event, messages);
        shown ??= setTimeout(show, SHOW_EVERY_MS);
      }
      answer = { ...answer, state: "done" };
    } catch (error) {
      if (!signal.aborted) this.#listener.onFailed();
      answer = signal.aborted
        ? { ...answer, state: "stopped" }
        : { ...answer, state: "failed", error: error instanceof Error ? error.message : String(error) };
    } finally {
      answer = { ...answer, times: { ...answer.times, endedAt: Date.now() } };
      show();
    }
  }

  #taken(answer: Answer, event: ChatEvent, messages: readonly WireMessage[]): Answer {
    switch (event.kind) {
      case "named":
        this.#listener.onNamed(answer.id, event.id, messages);
        return answer;
      case "prefill":
        return { ...answer, state: "reading", prefill: event.progress };
      case "text":
        this.#listener.onText(answer.id, event.text, event.tokens);
        return {
          ...answer,
          state: "writing",
          text: answer.text + event.text,
          reasoning: answer.reasoning + event.reasoning,
          tokens: answer.tokens + event.tokens,
          times: { ...answer.times, firstTokenAt: answer.times.firstTokenAt ?? Date.now() },
        };
      case "finished":
        return { ...answer, reason: event.reason };
      case "usage":
        return { ...answer, usage: event.usage };
    }
  }
}
