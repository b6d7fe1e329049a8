/** The page: a list of conversations, the chat, and beside it the tide or the group. */

import type { VNode } from "preact";
import { ChatView } from "../chat/chat_view.tsx";
import { ConversationList } from "../chat/conversation_list.tsx";
import { GroupView } from "../group/group_view.tsx";
import { TideView } from "../tide/tide_view.tsx";
import { Header } from "./header.tsx";
import { KeyDialog } from "./key_dialog.tsx";
import type { PageState } from "./page_state.ts";
import { useObserved } from "./use_observed.ts";

/** Everything. */
export function Page({ state }: { readonly state: PageState }): VNode {
  const panel = useObserved(state.panel);
  const service = useObserved(state.watch.state);
  return (
    <div class="page" data-panel={panel}>
      <Header state={state} />
      {service.kind === "away" && (
        <p class="banner" role="alert">
          {service.message}. What you wrote stays here; the page goes on when the service is back.
        </p>
      )}
      <div class="columns">
        <ConversationList state={state} />
        <ChatView state={state} />
        {panel === "tide" && <TideView state={state} />}
        {panel === "group" && <GroupView state={state} />}
      </div>
      <KeyDialog state={state} />
    </div>
  );
}
