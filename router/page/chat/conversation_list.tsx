/** The conversations of this browser. */

import type { VNode } from "preact";
import { Icon } from "../frame/icons.tsx";
import type { PageState } from "../frame/page_state.ts";
import { type Conversation, titleOf } from "./conversation.ts";
import { useObserved } from "../frame/use_observed.ts";

/** At the left, or over the page where that is narrow. */
export function ConversationList({ state }: { readonly state: PageState }): VNode {
  const { conversations, isListOpen } = state;
  const kept = useObserved(conversations.kept);
  const open = useObserved(conversations.open);
  const isOpen = useObserved(isListOpen);
  const trouble = useObserved(conversations.trouble);
  const select = (conversation: Conversation) => {
    conversations.select(conversation);
    isListOpen.set(false);
  };
  return (
    <aside class={isOpen ? "list open" : "list"} aria-label="Conversations">
      <button
        type="button"
        class="new"
        onClick={() => {
          conversations.startNew();
          isListOpen.set(false);
        }}
      >
        <Icon name="plus" />
        <span>New conversation</span>
      </button>
      {trouble !== undefined && <p class="trouble" role="alert">{trouble}</p>}
      {kept.length === 0 && <p class="hint">Conversations are kept in this browser, and nowhere else.</p>}
      <ul>
        {kept.map((conversation) => (
          <li key={conversation.id} class={conversation.id === open.id ? "entry current" : "entry"}>
            <button
              type="button"
              class="title"
              aria-current={conversation.id === open.id ? "true" : undefined}
              onClick={() =>
                select(conversation)}
            >
              {titleOf(conversation)}
            </button>
            <button
              type="button"
              class="quiet small"
              aria-label={`Delete ${titleOf(conversation)}`}
              onClick={() => {
                if (confirm(`Delete “${titleOf(conversation)}”?`)) {
                  void conversations.remove(conversation.id);
                }
              }}
            >
              <Icon name="bin" />
            </button>
          </li>
        ))}
      </ul>
    </aside>
  );
}
