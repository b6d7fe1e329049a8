/** The conversations of this browser. */

import type { VNode } from "preact";
import { IconButton } from "../frame/icon_button.tsx";
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
        {kept.map((each) => <Entry key={each.id} state={state} conversation={each} isCurrent={each.id === open.id} />)}
      </ul>
    </aside>
  );
}

function Entry({ state: { conversations, isListOpen }, conversation, isCurrent }: {
  readonly state: PageState;
  readonly conversation: Conversation;
  readonly isCurrent: boolean;
}): VNode {
  const title = titleOf(conversation);
  const select = () => {
    conversations.select(conversation);
    isListOpen.set(false);
  };
  const remove = () => {
    if (confirm(`Delete “${title}”?`)) void conversations.remove(conversation.id);
  };
  return (
    <li class={isCurrent ? "entry current" : "entry"}>
      <button type="button" class="title" aria-current={isCurrent ? "true" : undefined} onClick={select}>
        {title}
      </button>
      <IconButton icon="bin" label={`Delete ${title}`} onClick={remove} />
    </li>
  );
}
