/**
 * How many tokens a conversation will have, before it is sent: each text is counted once by the service and remembered, and
 * what the chat template adds around a message is measured once.
 */

import type { Service, WireMessage } from "../service/service.ts";
import { ServiceError } from "../service/service.ts";

/** Tokens around messages. */
interface TemplateCost {
  readonly base: number;
  readonly perMessage: number;
  /** Whether the template takes no two messages of a person in a row. */
  readonly joinsDocuments: boolean;
}

const PROBE: WireMessage = { role: "user", content: "x" };

/** Texts whose counts are remembered. */
const MAX_KNOWN = 500;

/** Counts with one service. */
export class PromptSize {
  readonly #service: Service;
  readonly #known = new Map<string, number>();
  #cost: Promise<TemplateCost> | undefined;

  constructor(service: Service) {
    this.#service = service;
  }

  /** Whether documents must be a part of the question. @throws {ServiceError} */
  async joinsDocuments(): Promise<boolean> {
    return (await this.#templateCost()).joinsDocuments;
  }

  /** Tokens of a conversation, the template's included. @throws {ServiceError} */
  async count(messages: readonly WireMessage[], signal: AbortSignal): Promise<number> {
    const { base, perMessage } = await this.#templateCost();
    let tokens = base;
    for (const { content } of messages) tokens += perMessage + await this.#countOf(content, signal);
    return tokens;
  }

  async #countOf(text: string, signal: AbortSignal): Promise<number> {
    const known = this.#known.get(text);
    if (known !== undefined) return known;
    const count = await this.#service.countTokens(text, signal);
    this.#known.set(text, count);
    const [oldest] = this.#known.keys();
    if (oldest !== undefined && this.#known.size > MAX_KNOWN) this.#known.delete(oldest);
    return count;
  }

  #templateCost(): Promise<TemplateCost> {
    const cost = this.#cost ?? this.#measure();
    this.#cost = cost;
    cost.catch(() => this.#cost = undefined);
    return cost;
  }

  async #measure(): Promise<TemplateCost> {
    const [text, one] = [await this.#service.countTokens(PROBE.content), await this.#service.countPrompt([PROBE])];
    try {
      const two = await this.#service.countPrompt([PROBE, PROBE]);
      const perMessage = two - one - text;
      return { base: one - text - perMessage, perMessage, joinsDocuments: false };
    } catch (error) {
      if (!(error instanceof ServiceError) || error.code !== "invalid_request") throw error;
      return { base: 0, perMessage: one - text, joinsDocuments: true };
    }
  }
}
