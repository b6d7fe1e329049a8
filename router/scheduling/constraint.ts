/**
 * What the scheduler needs of grammars: masks of the tokens that may come next. Implemented by
 * `grammar/grammar_service.ts`, faked by tests.
 */

import type { GrammarSpec } from "../grammar/grammar_spec.ts";

/** The grammar of one answer. */
export interface Constraint {
  /**
   * A bit for each token that may follow: after the first `from` tokens of the answer, after one more, …, after all.
   * The tokens need not continue those of the last call.
   * @param words of one mask, 32 tokens each, the lowest bit first
   * @returns u32 [tokens.length − from + 1, words]
   * @throws {CodedError}
   */
  masks(tokens: Uint32Array, from: number, words: number): Promise<Uint32Array>;
  /** Frees what is kept for it. */
  close(): void;
}

/** Follows answers through their grammars. */
export interface ConstraintHost {
  follow(grammar: GrammarSpec): Constraint;
}
