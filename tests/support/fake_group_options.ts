/** What a test may say about a fake group. */

import type { SequenceOpening, Step } from "../../engine/span.ts";
import type { ModelInfo } from "../../router/group/group.ts";

/** How the fake differs from its defaults. */
export interface FakeGroupOptions {
  readonly model?: Partial<ModelInfo>;
  /** What a step claims to have taken; it really takes one turn of the event loop. @default 1 ms */
  readonly stepMs?: (step: Step) => number;
  /** Whether the token drawn after a sparse row at this position differs from what full attention draws. @default never */
  readonly errs?: (position: number, open: SequenceOpening) => boolean;
  /** Steps that it takes at a time. @default 1 */
  readonly stepsInFlight?: number;
  /** Starts out loading; `recover` makes it ready. @default false */
  readonly loading?: boolean;
}
