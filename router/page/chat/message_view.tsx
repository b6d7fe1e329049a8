/** Questions and answers as they stand in the chat. */

import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { IconButton } from "../frame/icon_button.tsx";
import { Icon } from "../frame/icons.tsx";
import type { PageState } from "../frame/page_state.ts";
import { type Answer, isRunning, type Question } from "./conversation.ts";
import { DocumentName } from "./document_name.tsx";
import { Markdown } from "./markdown.tsx";
import { describeAnswer, percent, seconds, timeLeft, whole } from "./plain_words.ts";
import { useObserved } from "../frame/use_observed.ts";

/** What a person asked, with its documents. */
export function QuestionView({ state, question }: { readonly state: PageState; readonly question: Question }): VNode {
  const [isEdited, setEdited] = useState(false);
  const [text, setText] = useState(question.text);
  const send = (event: Event) => {
    event.preventDefault();
    setEdited(false);
    void state.answering.edit(question.id, text);
  };
  return (
    <article class="question" aria-label="Your question">
      {isEdited
        ? <EditForm text={text} onText={setText} onSend={send} onCancel={() => setEdited(false)} />
        : <Asked question={question} onEdit={() => setEdited(true)} />}
    </article>
  );
}

function EditForm({ text, onText, onSend, onCancel }: {
  readonly text: string;
  readonly onText: (text: string) => void;
  readonly onSend: (event: Event) => void;
  readonly onCancel: () => void;
}): VNode {
  return (
    <form class="edit" onSubmit={onSend}>
      <textarea
        aria-label="Question"
        value={text}
        rows={3}
        onInput={(event) => onText(event.currentTarget.value)}
      />
      <div class="actions">
        <button type="button" class="secondary" onClick={onCancel}>Cancel</button>
        <button type="submit" class="primary">Ask again</button>
      </div>
    </form>
  );
}

function Asked({ question, onEdit }: { readonly question: Question; readonly onEdit: () => void }): VNode {
  return (
    <>
      {question.attachments.map((document) => (
        <p key={document.id} class="document">
          <DocumentName document={document} />
        </p>
      ))}
      {question.text !== "" && <p class="asked">{question.text}</p>}
      <div class="tools">
        <IconButton icon="edit" label="Edit question" onClick={onEdit} />
      </div>
    </>
  );
}

/** What the model answered, and how. */
export function AnswerView({ state, answer }: { readonly state: PageState; readonly answer: Answer }): VNode {
  const { text, reasoning, error, reason } = answer;
  return (
    <article class="answer" aria-label="Answer" aria-busy={isRunning(answer)}>
      {reasoning !== "" && (
        <details class="reasoning" open={text === ""}>
          <summary>Reasoning</summary>
          <p>{reasoning}</p>
        </details>
      )}
      {text !== "" && <Markdown text={text} />}
      {isRunning(answer) && <Progress answer={answer} />}
      {answer.state === "stopped" && <p class="note">Stopped.</p>}
      {reason === "length" && <p class="note">Cut off at the longest answer that was allowed.</p>}
      {error !== undefined && <p class="failed" role="alert">{error}</p>}
      {!isRunning(answer) && <Footer state={state} answer={answer} />}
    </article>
  );
}

function Progress({ answer: { state, prefill, tokens, times } }: { readonly answer: Answer }): VNode {
  if (state === "writing") {
    const first = times.firstTokenAt ?? Date.now();
    const pace = tokens > 1
      ? ` · ${((tokens - 1) / Math.max(0.05, (Date.now() - first) / 1000)).toFixed(1)} tokens/s`
      : "";
    return <p class="progress">Writing · {whole(tokens)} tokens{pace}</p>;
  }
  if (prefill === undefined) return <p class="progress">Waiting for its turn</p>;
  const left = timeLeft(prefill);
  return (
    <div class="progress">
      <progress aria-label="Reading the prompt" max={prefill.total} value={prefill.processed} />
      <p>
        Reading · {whole(prefill.processed)} of {whole(prefill.total)} tokens
        {prefill.cached > 0 && ` · ${percent(prefill.cached / prefill.total)} from cache`}
        {left !== undefined && left > 500 && ` · about ${seconds(left)} left`}
      </p>
    </div>
  );
}

function Footer({ state, answer }: { readonly state: PageState; readonly answer: Answer }): VNode {
  useObserved(state.tide.shown);
  useObserved(state.watch.state);
  const [isCopied, setCopied] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(answer.text);
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  const showTide = () => {
    state.tide.show(answer.id);
    state.panel.set("tide");
  };
  return (
    <footer>
      <ul class="facts">
        {describeAnswer(answer, state.model?.layers).map((line) => <li key={line}>{line}</li>)}
      </ul>
      <div class="tools">
        <IconButton icon="retry" label="Answer again" onClick={() => void state.answering.retry(answer.id)} />
        {answer.text !== "" && (
          <IconButton
            icon="copy"
            label={isCopied ? "Copied" : "Copy answer"}
            onClick={() => void copy()}
          />
        )}
        {state.tide.has(answer.id) && (
          <button type="button" class="quiet small labelled" onClick={showTide}>
            <Icon name="wave" />
            <span>What it read</span>
          </button>
        )}
      </div>
    </footer>
  );
}
