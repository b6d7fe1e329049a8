/** What the rows of one sequence read, and therefore how it attended. Knows counts; decides nothing. */

import type { ModelInfo } from "../group/group.ts";
import { attentionAt, type AttentionPolicy, rowsReadAt } from "./attention_policy.ts";
import { contextOf } from "./cost_model.ts";
import type { AttentionUsage } from "./generation.ts";

/** What one sequence has read since its first decoded row; what is rebuilt does not count. */
export class AttentionTally {
  readonly #policy: AttentionPolicy;
  readonly #model: ModelInfo;
  #sparseRows = 0;
  #rowsRead = 0;
  /** Rows that an adaptive row read, on average over those so far; undefined before the first. */
  #adaptiveRead: number | undefined;

  constructor(policy: AttentionPolicy, model: ModelInfo) {
    this.#policy = policy;
    this.#model = model;
  }

  /**
   * A decoded row was computed, sparse or dense as the policy says.
   * @param told what an adaptive row really read, as its worker reports
   */
  row(kind: "dense" | "sparse", position: number, told: number | undefined): void {
    if (kind === "sparse") this.#sparseRows++;
    this.#rowsRead += told ?? rowsReadAt(this.#policy, this.#model, position);
    if (told === undefined) return;
    const before = this.#adaptiveRead ?? told;
    this.#adaptiveRead = before + (told - before) / this.#sparseRows;
  }

  /** KV rows over all layers that the decoded row at `position` reads; of an adaptive one, an estimate. */
  expected(position: number): number {
    const isSparse = attentionAt(this.#policy, position) === "sparse";
    return (isSparse ? this.#adaptiveRead : undefined) ?? rowsReadAt(this.#policy, this.#model, position);
  }

  /** Rows were computed with full attention, whatever the policy says. */
  corrected(from: number, rows: number): void {
    this.#rowsRead += this.#model.layers * contextOf(from, rows);
  }

  /**
   * @param context positions in the cache
   * @param decoded tokens that decoded rows gave the reader
   */
  usage(context: number, decoded: number): Omit<AttentionUsage, "correction"> {
    const sparse = this.#sparseRows > 0;
    const { budget, coverage } = this.#policy.sparse;
    return {
      mode: sparse ? "sparse" : "dense",
      budget: sparse ? (coverage === undefined ? budget : "auto") : undefined,
      ...(sparse && coverage !== undefined && { coverage }),
      selectLayers: sparse ? this.#model.selectLayers : [],
      context,
      rowsReadPerToken: decoded === 0 ? 0 : this.#rowsRead / decoded,
    };
  }
}
