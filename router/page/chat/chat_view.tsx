/** The open conversation, and the field for the next question. */

import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Icon } from "../frame/icons.tsx";
import type { PageState } from "../frame/page_state.ts";
import { readFiles } from "./attachments.ts";
import { Composer } from "./composer.tsx";
import type { Attachment } from "./conversation.ts";
import { AnswerView, QuestionView } from "./message_view.tsx";
import { sampleOf } from "./sample.ts";
import { useObserved } from "../frame/use_observed.ts";

/** Nearer to the end than this, the view follows what is written. */
const FOLLOW_PX = 80;

/** Tokens of the sample text; less where the context is shorter. */
const SAMPLE_TOKENS = 4000;

/** The chat; a file may be dropped anywhere on it. */
export function ChatView({ state }: { readonly state: PageState }): VNode {
  const { messages, id } = useObserved(state.conversations.open);
  const [documents, setDocuments] = useState<readonly Attachment[]>([]);
  const [refused, setRefused] = useState<readonly string[]>([]);
  const [isOver, setOver] = useState(false);
  const add = async (files: Iterable<File>) => {
    const read = await readFiles(files);
    setDocuments((held) => [...held, ...read.attachments]);
    setRefused(read.refused);
  };
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    void add(event.dataTransfer?.files ?? []);
  };
  const drag = (event: DragEvent) => {
    event.preventDefault();
    setOver(true);
  };
  return (
    <main class={isOver ? "chat over" : "chat"} onDragOver={drag} onDragLeave={() => setOver(false)} onDrop={drop}>
      <h1 class="hidden">Chat</h1>
      {messages.length === 0
        ? <Welcome state={state} onSample={(attachment) => setDocuments([attachment])} />
        : <Messages state={state} />}
      {refused.map((line) => <p key={line} class="failed" role="alert">{line}</p>)}
      <Composer
        key={id}
        state={state}
        documents={documents}
        onDocuments={setDocuments}
        onFiles={(files) => void add(files)}
      />
      {isOver && <p class="drop" aria-hidden="true">Drop it here</p>}
    </main>
  );
}

function Messages({ state }: { readonly state: PageState }): VNode {
  const conversation = useObserved(state.conversations.open);
  const place = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  useEffect(() => {
    if (follows.current && place.current !== null) place.current.scrollTop = place.current.scrollHeight;
  }, [conversation]);
  const scrolled = (event: Event) => {
    const { scrollHeight, scrollTop, clientHeight } = event.currentTarget as HTMLElement;
    follows.current = scrollHeight - scrollTop - clientHeight < FOLLOW_PX;
  };
  return (
    <div class="messages" ref={place} onScroll={scrolled} tabIndex={0} role="log" aria-label="Conversation">
      {conversation.messages.map((message) =>
        message.role === "user"
          ? <QuestionView key={message.id} state={state} question={message} />
          : <AnswerView key={message.id} state={state} answer={message} />
      )}
    </div>
  );
}

function Welcome({ state, onSample }: {
  readonly state: PageState;
  readonly onSample: (attachment: Attachment) => void;
}): VNode {
  useObserved(state.watch.state);
  const { model } = state;
  const tokens = Math.min(SAMPLE_TOKENS, Math.floor((model?.contextTokens ?? SAMPLE_TOKENS) * 0.6));
  const trySample = () => {
    const { attachment, question } = sampleOf(tokens);
    onSample(attachment);
    document.querySelector<HTMLTextAreaElement>(".composer textarea")?.focus();
    state.draft.set(question);
  };
  return (
    <section class="welcome" aria-labelledby="welcome-title">
      <Icon name="wave" />
      <h2 id="welcome-title">Ask about something long</h2>
      <p>
        Drop a file here, or paste a text. While the answer is written, the tide shows which of its positions the model
        reads.
      </p>
      <button type="button" class="secondary" onClick={trySample} disabled={model === undefined}>
        Hide a fact in a text and ask for it
      </button>
    </section>
  );
}
