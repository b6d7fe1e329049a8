/** Everything that stays the same from step to step: the weights, the KV slice, and this worker's place in its group. */

import type { Commands } from "../kernels/pipeline.ts";
import type { Scratch } from "../kernels/scratch.ts";
import type { Exchange } from "./exchange.ts";
import type { KvSlice } from "./kv/kv_slice.ts";
import type { Replicas } from "./kv/replicas.ts";
import type { LayerRole } from "./layer_plan.ts";
import type { DraftLogits } from "./logits/draft_logits.ts";
import type { TokenCounts } from "./logits/token_counts.ts";
import type { ModelConfig } from "./model/model_config.ts";
import type { RopeFrequencies } from "./model/rope.ts";
import type { Weights } from "./model/weights.ts";
import type { PageShare } from "./page_map.ts";
import type { SlicePacer } from "./pass/pacer.ts";

/** A model that is ready to compute steps; made by `Engine.open`, its place in a group set by `Engine.join`. */
export interface LoadedModel {
  readonly commands: Commands;
  readonly scratch: Scratch;
  readonly config: ModelConfig;
  readonly weights: Weights;
  readonly slice: KvSlice;
  /** Undefined without a calibration: then no row may be sparse. */
  readonly roles: readonly LayerRole[] | undefined;
  readonly frequencies: RopeFrequencies;
  /** Of layers with a window of their own; undefined where there are none. */
  readonly localFrequencies: RopeFrequencies | undefined;
  /** What this worker holds of every sequence. */
  readonly share: PageShare;
  readonly exchange: Exchange;
  /** Of rows that other workers own; undefined alone in a group. */
  readonly replicas: Replicas | undefined;
  /** Of passes that may take long: prefill, and decode batches with blocks of consecutive rows. */
  readonly pacers: { readonly prefill: SlicePacer; readonly blocks: SlicePacer };
  /** Logits of sparse rows that await an audit; the lead's only. */
  readonly drafts: DraftLogits;
  /** Of sequences whose penalties count tokens; the lead's only. */
  readonly counts: TokenCounts;
}
