/** All conversations of this browser: one is open, the others are listed; kept in IndexedDB, the newest fifty. */

import { createStore, del, entries, set, type UseStore } from "idb-keyval";

import { Observable } from "../frame/observable.ts";
import { type Conversation, isRunning, newConversation } from "./conversation.ts";
import { DEFAULT_SETTINGS } from "./settings.ts";

const MAX_KEPT = 50;

/** The conversations, and which one is open. */
export class Conversations {
  /** Newest first; only those with messages. */
  readonly kept: Observable<readonly Conversation[]> = new Observable<readonly Conversation[]>([]);
  readonly open: Observable<Conversation> = new Observable(newConversation(DEFAULT_SETTINGS));
  /** What keeps conversations from being kept, for the person. */
  readonly trouble: Observable<string | undefined> = new Observable<string | undefined>(undefined);
  readonly #store: UseStore = createStore("tidepool", "conversations");

  /** Reads what was kept, and opens the conversation that the address names. */
  async restore(): Promise<void> {
    try {
      const found = (await entries<string, Conversation>(this.#store)).map(([, conversation]) => settled(conversation));
      this.kept.set(found.sort((a, b) => b.changedAt - a.changedAt));
      const named = found.find(({ id }) => id === location.hash.slice(1));
      if (named !== undefined) this.open.set(named);
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Opens another conversation. */
  select(conversation: Conversation): void {
    this.open.set(conversation);
    const hash = conversation.messages.length === 0 ? "" : `#${conversation.id}`;
    history.replaceState(undefined, "", `${location.pathname}${hash}`);
  }

  /** Opens an empty conversation with the settings of the open one. */
  startNew(): void {
    this.select(newConversation(this.open.value.settings));
  }

  /** Changes a conversation wherever it stands, without keeping it yet. */
  change(id: string, change: (conversation: Conversation) => Conversation): void {
    if (this.open.value.id === id) this.open.set(change(this.open.value));
    else this.kept.set(this.kept.value.map((kept) => kept.id === id ? change(kept) : kept));
  }

  /** Keeps a conversation as it is now; the oldest make room. */
  async keep(id: string): Promise<void> {
    const conversation = this.find(id);
    if (conversation === undefined || conversation.messages.length === 0) return;
    const all = [conversation, ...this.kept.value.filter((kept) => kept.id !== id)];
    this.kept.set(all.slice(0, MAX_KEPT));
    if (this.open.value.id === id) this.select(this.open.value);
    try {
      await set(id, conversation, this.#store);
      for (const { id: oldest } of all.slice(MAX_KEPT)) await del(oldest, this.#store);
      this.trouble.set(undefined);
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Forgets a conversation. */
  async remove(id: string): Promise<void> {
    this.kept.set(this.kept.value.filter((kept) => kept.id !== id));
    if (this.open.value.id === id) this.startNew();
    try {
      await del(id, this.#store);
    } catch (error) {
      this.#failed(error);
    }
  }

  /** @returns undefined when it was removed */
  find(id: string): Conversation | undefined {
    return this.open.value.id === id ? this.open.value : this.kept.value.find((kept) => kept.id === id);
  }

  #failed(error: unknown): void {
    const why = error instanceof Error ? error.message : String(error);
    this.trouble.set(`Conversations are not kept in this browser: ${why}`);
  }
}

/** An answer that was on its way when the page was left has ended there. */
function settled(conversation: Conversation): Conversation {
  const messages = conversation.messages.map((message) =>
    message.role === "assistant" && isRunning(message) ? { ...message, state: "stopped" as const } : message
  );
  return { ...conversation, messages };
}
