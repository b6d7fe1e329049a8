/** The field for the next question: text, documents, how long it all is, and how the answer is to be made. */

import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { IconButton } from "../frame/icon_button.tsx";
import { Icon } from "../frame/icons.tsx";
import type { PageState } from "../frame/page_state.ts";
import { attachmentOf, MIN_PASTED } from "./attachments.ts";
import { type Attachment, wireMessages } from "./conversation.ts";
import { DocumentName } from "./document_name.tsx";
import { whole } from "./plain_words.ts";
import { SettingsPanel } from "./settings_panel.tsx";
import { useObserved } from "../frame/use_observed.ts";

/** Typing pauses this long before tokens are counted. */
const COUNT_AFTER_MS = 400;

/** What a composer works with. */
export interface ComposerProps {
  readonly state: PageState;
  readonly documents: readonly Attachment[];
  readonly onDocuments: (documents: readonly Attachment[]) => void;
  readonly onFiles: (files: Iterable<File>) => void;
}

/** The form under the conversation. */
export function Composer({ state, documents, onDocuments, onFiles }: ComposerProps): VNode {
  const { answering, draft } = state;
  const text = useObserved(draft);
  const running = useObserved(answering.running);
  const [isSet, setSet] = useState(false);
  const isEmpty = text.trim() === "" && documents.length === 0;
  const send = (event: Event) => {
    event.preventDefault();
    if (isEmpty) return;
    draft.set("");
    onDocuments([]);
    void answering.ask(text.trim(), documents);
  };
  const paste = (event: ClipboardEvent) => {
    const pasted = event.clipboardData?.getData("text") ?? "";
    if (pasted.length < MIN_PASTED) return;
    event.preventDefault();
    onDocuments([...documents, attachmentOf("Pasted text", pasted)]);
  };
  return (
    <form class="composer" onSubmit={send} onPaste={paste}>
      {isSet && <SettingsPanel state={state} />}
      <Documents documents={documents} onDocuments={onDocuments} />
      <QuestionField text={text} onText={(text) => draft.set(text)} onSend={send} />
      <div class="bar">
        <FileButton onFiles={onFiles} />
        <SettingsButton isOpen={isSet} onClick={() => setSet(!isSet)} />
        <Size state={state} text={text} documents={documents} />
        {running === undefined ? <SendButton isEmpty={isEmpty} /> : <StopButton onClick={() => answering.stop()} />}
      </div>
    </form>
  );
}

/** Sends on Enter; Shift and Enter begin a new line. */
function QuestionField({ text, onText, onSend }: {
  readonly text: string;
  readonly onText: (text: string) => void;
  readonly onSend: (event: Event) => void;
}): VNode {
  return (
    <textarea
      aria-label="Your question"
      placeholder="Ask something"
      rows={1}
      value={text}
      onInput={(event) => onText(event.currentTarget.value)}
      onKeyDown={(event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        onSend(event);
      }}
    />
  );
}

function SettingsButton({ isOpen, onClick }: { readonly isOpen: boolean; readonly onClick: () => void }): VNode {
  return (
    <button type="button" class="quiet labelled" aria-label="Settings" aria-expanded={isOpen} onClick={onClick}>
      <Icon name="settings" />
      <span>Settings</span>
    </button>
  );
}

function SendButton({ isEmpty }: { readonly isEmpty: boolean }): VNode {
  return (
    <button type="submit" class="primary round" aria-label="Send" disabled={isEmpty}>
      <Icon name="send" />
    </button>
  );
}

function StopButton({ onClick }: { readonly onClick: () => void }): VNode {
  return (
    <button type="button" class="primary round" aria-label="Stop" onClick={onClick}>
      <Icon name="stop" />
    </button>
  );
}

function Documents({ documents, onDocuments }: Pick<ComposerProps, "documents" | "onDocuments">): VNode | null {
  if (documents.length === 0) return null;
  return (
    <ul class="documents" aria-label="Documents">
      {documents.map((document) => (
        <li key={document.id} class="document">
          <DocumentName document={document} />
          <IconButton
            icon="close"
            label={`Remove ${document.name}`}
            onClick={() => onDocuments(documents.filter(({ id }) => id !== document.id))}
          />
        </li>
      ))}
    </ul>
  );
}

function FileButton({ onFiles }: Pick<ComposerProps, "onFiles">): VNode {
  const input = useRef<HTMLInputElement>(null);
  const chosen = (event: Event) => {
    const { files } = event.currentTarget as HTMLInputElement;
    if (files !== null) onFiles([...files]);
    if (input.current !== null) input.current.value = "";
  };
  return (
    <>
      <input ref={input} type="file" multiple hidden aria-label="Files" onChange={chosen} />
      <button
        type="button"
        class="quiet"
        aria-label="Add a file"
        title="Add a file"
        onClick={() => input.current?.click()}
      >
        <Icon name="clip" />
      </button>
    </>
  );
}

/** How many tokens the prompt will have, beside how many there may be. */
function Size(
  { state, text, documents }: Pick<ComposerProps, "state" | "documents"> & { readonly text: string },
): VNode {
  const conversation = useObserved(state.conversations.open);
  useObserved(state.watch.state);
  const [tokens, setTokens] = useState<number>();
  const most = state.model?.contextTokens;
  useEffect(() => {
    if (most === undefined || (text === "" && documents.length === 0 && conversation.messages.length === 0)) {
      setTokens(undefined);
      return;
    }
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      const next = { role: "user", id: "", text, attachments: documents } as const;
      const { sizes } = state;
      try {
        const all = { ...conversation, messages: [...conversation.messages, next] };
        setTokens(await sizes.count(wireMessages(all, await sizes.joinsDocuments()), abort.signal));
      } catch {
        // Whoever sends it learns why; until then its length is unknown.
        setTokens(undefined);
      }
    }, COUNT_AFTER_MS);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [text, documents, conversation.messages.length, conversation.settings.system, most]);
  if (most === undefined || tokens === undefined) return <span class="tokens" />;
  return (
    <span class={tokens > most ? "tokens too-many" : "tokens"} role="status">
      <meter aria-label="Share of the context" min={0} max={most} high={most * 0.9} value={tokens} />
      {whole(tokens)} of {whole(most)} tokens{tokens > most && ": too long"}
    </span>
  );
}
