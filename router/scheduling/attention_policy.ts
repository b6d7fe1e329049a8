/**
 * Which decoded rows of a request attend sparsely: decided once from what the client asked and what the model can do.
 * Knows modes, budgets and positions; knows nothing of sequences.
 */

import { MIN_BUDGET, rowAttention, rowsRead } from "../../engine/layer_plan.ts";
import type { SparseSettings } from "../../engine/span.ts";
import { RequestError } from "../errors.ts";
import type { AttentionRequest, CorrectionRequest } from "./generation.ts";
import type { ModelInfo } from "../group/group.ts";

/** The share of the attention that adaptive sets cover when neither client nor operator sets one. */
export const DEFAULT_COVERAGE = 0.98;

/** How the rows of one sequence attend, whatever its length. */
export interface AttentionPolicy {
  readonly sparse: SparseSettings;
  /** Contexts longer than this many positions are decoded sparsely; Infinity: none is. */
  readonly sparseFrom: number;
  readonly correction: CorrectionRequest;
}

/**
 * Decides for a request.
 * @throws {RequestError} `invalid_request` when sparse attention is requested from a model without a calibration
 */
export function resolveAttention(request: AttentionRequest, model: ModelInfo): AttentionPolicy {
  const calibrated = model.sparse;
  if (request.mode === "sparse" && calibrated === undefined) {
    throw new RequestError(
      "invalid_request",
      `Cannot decode sparsely: model ${model.id} has no calibration (run calibrate, or ask for mode auto or dense)`,
      { param: "attention.mode" },
    );
  }
  const sparse = sparseSettings(request, calibrated?.budget ?? MIN_BUDGET);
  const { correction } = request;
  if (request.mode === "dense" || calibrated === undefined) return { sparse, sparseFrom: Infinity, correction };
  return { sparse, sparseFrom: request.mode === "sparse" ? 0 : calibrated.sparseFrom, correction };
}

/** @param fallback the budget, or its bound, when the request names none */
function sparseSettings({ budget, heads }: AttentionRequest, fallback: number): SparseSettings {
  if (typeof budget !== "object") return { budget: budget ?? fallback, heads };
  return { budget: budget.atMost ?? fallback, heads, coverage: budget.coverage };
}

/** How the decoded row at `position` attends. */
export function attentionAt(policy: AttentionPolicy, position: number): "dense" | "sparse" {
  return position + 1 > policy.sparseFrom ? rowAttention(policy.sparse, position) : "dense";
}

/** KV rows that one KV head reads over all layers for the decoded row at `position`; of an adaptive row, at most reads. */
export function rowsReadAt(policy: AttentionPolicy, model: ModelInfo, position: number): number {
  if (model.roles === undefined || attentionAt(policy, position) === "dense") return model.layers * (position + 1);
  return rowsRead(model.roles, policy.sparse.budget, position);
}
