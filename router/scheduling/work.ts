/** What a sequence has to do next, and what came of it. Plain data between sequences and those who plan steps. */

import type { Span } from "../../engine/span.ts";
import type { CorrectionReport } from "./correction.ts";
import type { RowKind } from "./cost_model.ts";

/** Consecutive rows that are to be computed in one span, or the first of them. */
export interface Work {
  readonly kind: RowKind;
  /** Position of the first row. */
  readonly from: number;
  readonly rows: number;
}

/** Work as it was done. */
export interface DoneWork {
  readonly work: Work;
  readonly span: Span;
}

/** What came of a span for its sequence. */
export interface Progress {
  /** Tokens that its reader got. */
  readonly tokens: number;
  readonly correction: CorrectionReport | undefined;
}

/** Most rows of the matrix–vector family in one span of a rebuilding. */
export const REBUILD_ROWS = 16;
