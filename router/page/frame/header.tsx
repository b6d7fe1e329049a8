/** The bar at the top: what is served and whether it is well, what to look at, light or dark. */

import type { VNode } from "preact";
import { whole } from "../chat/plain_words.ts";
import type { ServiceState } from "../service/service_state.ts";
import { Icon } from "./icons.tsx";
import type { PageState, Panel } from "./page_state.ts";
import { theme, THEMES } from "./theme.ts";
import { useObserved } from "./use_observed.ts";

/** The header. */
export function Header({ state }: { readonly state: PageState }): VNode {
  const panel = useObserved(state.panel);
  return (
    <header class="header">
      <button
        type="button"
        class="quiet only-narrow"
        aria-label="Conversations"
        onClick={() => state.isListOpen.set(!state.isListOpen.value)}
      >
        <Icon name="list" />
      </button>
      <span class="brand">
        <Icon name="wave" />
        <span>Tidepool</span>
      </span>
      <Status state={state} />
      <nav class="views" aria-label="Views">
        <ViewButton state={state} panel="none" shown={panel} icon="chat" label="Chat" />
        <ViewButton state={state} panel="tide" shown={panel} icon="wave" label="Tide" />
        <ViewButton state={state} panel="group" shown={panel} icon="group" label="Group" />
      </nav>
      <KeyButton state={state} />
      <ThemeButton />
    </header>
  );
}

function ViewButton({ state, panel, shown, icon, label }: {
  readonly state: PageState;
  readonly panel: Panel;
  readonly shown: Panel;
  readonly icon: Parameters<typeof Icon>[0]["name"];
  readonly label: string;
}): VNode {
  return (
    <button
      type="button"
      class={panel === "none" ? "view only-small" : "view"}
      aria-label={label}
      aria-pressed={shown === panel}
      onClick={() => panel === "none" ? state.panel.set("none") : state.toggle(panel)}
    >
      <Icon name={icon} />
      <span>{label}</span>
    </button>
  );
}

function KeyButton({ state }: { readonly state: PageState }): VNode {
  return (
    <button
      type="button"
      class="quiet"
      aria-label="API key"
      title="API key"
      onClick={() => state.isKeyAsked.set(true)}
    >
      <Icon name="key" />
    </button>
  );
}

function ThemeButton(): VNode {
  const shown = useObserved(theme);
  const next = THEMES[(THEMES.indexOf(shown) + 1) % THEMES.length] ?? "auto";
  const label = `Colours: ${shown}; change to ${next}`;
  return (
    <button type="button" class="quiet" aria-label={label} title={label} onClick={() => theme.set(next)}>
      <Icon name="theme" />
    </button>
  );
}

function Status({ state }: { readonly state: PageState }): VNode {
  const service = useObserved(state.watch.state);
  const { tone, text } = describe(service);
  return (
    <p class={`status ${tone}`} role="status">
      <span class="dot" aria-hidden="true" />
      <span class="status-text">{text}</span>
    </p>
  );
}

function describe(state: ServiceState): { tone: "calm" | "busy" | "bad"; text: string } {
  switch (state.kind) {
    case "connecting":
      return { tone: "busy", text: "Connecting" };
    case "away":
      return { tone: "bad", text: "The service does not answer" };
    case "loading": {
      const { group, progress = 0, reason } = state.health;
      if (group === "loading" && reason === undefined) {
        return { tone: "busy", text: `Loading, ${Math.round(progress * 100)} %` };
      }
      return { tone: "bad", text: reason ?? "The workers are not there" };
    }
    case "ready": {
      const { health, model } = state;
      if (health.draining) return { tone: "busy", text: "The service is stopping" };
      const name = model?.id ?? health.model ?? "A model";
      return { tone: "calm", text: `${name} · ${whole(health.free_tokens)} tokens free` };
    }
  }
}
