/** Asks for the API key when the service wants one. */

import type { RefObject, VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { PageState } from "./page_state.ts";
import { useObserved } from "./use_observed.ts";

/** A dialog over the page; it opens by itself after a refusal. */
export function KeyDialog({ state }: { readonly state: PageState }): VNode {
  const isOpen = useObserved(state.isKeyAsked);
  const [key, setKey] = useState("");
  const [isKept, setKept] = useState(false);
  const dialog = useModal(isOpen);
  const use = (event: Event) => {
    event.preventDefault();
    state.service.useKey(key.trim(), isKept);
    setKey("");
    state.isKeyAsked.set(false);
    void state.watch.look();
  };
  return (
    <dialog ref={dialog} class="dialog" aria-labelledby="key-title" onCancel={() => state.isKeyAsked.set(false)}>
      <form onSubmit={use}>
        <h2 id="key-title">API key</h2>
        <Reason state={state} />
        <label class="field">
          <span>Key</span>
          <input
            type="password"
            value={key}
            autocomplete="off"
            spellcheck={false}
            onInput={(event) => setKey(event.currentTarget.value)}
          />
        </label>
        <label class="check">
          <input type="checkbox" checked={isKept} onChange={(event) => setKept(event.currentTarget.checked)} />
          <span>Keep it after this tab is closed</span>
        </label>
        <div class="actions">
          <button type="button" class="secondary" onClick={() => state.isKeyAsked.set(false)}>Cancel</button>
          <button type="submit" class="primary">Use key</button>
        </div>
      </form>
    </dialog>
  );
}

/** A dialog that is open while it is to be. */
function useModal(isOpen: boolean): RefObject<HTMLDialogElement | null> {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (isOpen && dialog.current?.open === false) dialog.current.showModal();
    if (!isOpen) dialog.current?.close();
  }, [isOpen]);
  return dialog;
}

function Reason({ state: { service } }: { readonly state: PageState }): VNode {
  const wasRefused = useObserved(service.needsKey);
  return (
    <p class={wasRefused ? "refused" : ""} role={wasRefused ? "alert" : undefined}>
      {wasRefused
        ? `The service ${service.key === "" ? "wants a key" : "does not know this key"}.`
        : "A service with keys wants one with every request. It stays in this browser."}
    </p>
  );
}
