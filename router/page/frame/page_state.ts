/** Everything that the page knows, made once: the service, the conversations, the answers on their way, and what is shown. */

import { Answering } from "../chat/answering.ts";
import { Conversations } from "../chat/conversations.ts";
import { PromptSize } from "../chat/prompt_size.ts";
import { type ModelInfo, Service } from "../service/service.ts";
import { ServiceWatch } from "../service/service_state.ts";
import { TideWatch } from "../tide/tide_watch.ts";
import { Observable } from "./observable.ts";

/** What is shown next to the chat, or, on a narrow screen, in its place. */
export type Panel = "tide" | "group" | "none";

/** Wide enough for a panel beside the chat; the style sheet has the same number. */
const WIDE = "(min-width: 1100px)";

/** The state of the page. */
export class PageState {
  readonly service: Service = new Service();
  readonly watch: ServiceWatch = new ServiceWatch(this.service);
  readonly conversations: Conversations = new Conversations();
  readonly sizes: PromptSize = new PromptSize(this.service);
  readonly tide: TideWatch = new TideWatch(this.service);
  readonly answering: Answering;
  readonly panel: Observable<Panel> = new Observable<Panel>(matchMedia(WIDE).matches ? "tide" : "none");
  /** Whether the list of conversations is open where there is no place for it. */
  readonly isListOpen: Observable<boolean> = new Observable(false);
  /** The question that is being written. */
  readonly draft: Observable<string> = new Observable("");
  readonly isKeyAsked: Observable<boolean> = new Observable(false);

  constructor() {
    const { service, conversations, sizes, tide } = this;
    this.answering = new Answering(service, {
      conversations,
      sizes,
      listener: {
        onNamed: (answer, response, messages) => tide.begin(answer, response, messages),
        onText: (answer, text, tokens) => tide.append(answer, text, tokens),
        onFailed: () => void this.watch.look(),
      },
    });
    service.needsKey.subscribe(() => this.isKeyAsked.set(service.needsKey.value));
    void conversations.restore();
  }

  /** Shows a panel, or hides it when it is there. */
  toggle(panel: Panel): void {
    this.panel.set(this.panel.value === panel ? "none" : panel);
  }

  /** The served model, once it is known. */
  get model(): ModelInfo | undefined {
    const state = this.watch.state.value;
    return state.kind === "ready" ? state.model : undefined;
  }
}
