/** Whether the service is there and what it serves: asks `/health` again and again, sooner while something is wrong. */

import { Observable } from "../frame/observable.ts";
import { type Health, type ModelInfo, type Service, ServiceError } from "./service.ts";

/** The service as the page sees it. */
export type ServiceState =
  | { readonly kind: "connecting" }
  | { readonly kind: "away"; readonly message: string }
  | { readonly kind: "loading"; readonly health: Health }
  /** `model`: undefined while a key is missing. */
  | { readonly kind: "ready"; readonly health: Health; readonly model: ModelInfo | undefined };

const CALM_MS = 5000;
const ANXIOUS_MS = 1000;

/** Follows a service for as long as the page is open. */
export class ServiceWatch {
  readonly state: Observable<ServiceState> = new Observable({ kind: "connecting" });
  readonly #service: Service;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #epochs: string | undefined;
  #model: ModelInfo | undefined;

  constructor(service: Service) {
    this.#service = service;
    addEventListener("online", () => this.look());
    void this.look();
  }

  /** Looks now, whatever the interval. */
  async look(): Promise<void> {
    clearTimeout(this.#timer);
    const state = await this.#look();
    this.state.set(state);
    clearTimeout(this.#timer);
    const isWell = state.kind === "ready" && !state.health.draining;
    this.#timer = setTimeout(() => void this.look(), isWell ? CALM_MS : ANXIOUS_MS);
  }

  async #look(): Promise<ServiceState> {
    try {
      const health = await this.#service.health();
      if (health.group !== "ready") return { kind: "loading", health };
      return { kind: "ready", health, model: await this.#modelOf(health) };
    } catch (error) {
      return { kind: "away", message: error instanceof Error ? error.message : String(error) };
    }
  }

  /** Asked for again after every forming: the longest context may have changed. */
  async #modelOf({ groups }: Health): Promise<ModelInfo | undefined> {
    const epochs = groups.map(({ epoch = "-" }) => epoch).join();
    if (this.#model !== undefined && this.#epochs === epochs) return this.#model;
    try {
      this.#model = await this.#service.model();
      this.#epochs = epochs;
      return this.#model;
    } catch (error) {
      if (error instanceof ServiceError && error.code === "invalid_api_key") return undefined;
      throw error;
    }
  }
}
