/**
 * How a request wants its decoded rows to attend: how many positions sparse layers read, a number of them or as few as
 * cover a share of the attention, and what happens to sparse rows. Knows the fields of a request and the service's own
 * answer; knows nothing of the model but what it can do.
 */

import { RequestError } from "../errors.ts";
import type { ChatBody } from "../body/schemas.ts";
import { DEFAULT_COVERAGE } from "../scheduling/attention_policy.ts";
import { type AttentionRequest, audits, type CorrectionRequest, NO_CORRECTION } from "../scheduling/generation.ts";

type AttentionFields = ChatBody["attention"];

/** What a request is checked against. */
interface AttentionContext {
  readonly modelId: string;
  /** The longest context the model was made for: the largest sensible budget. */
  readonly maxPositions: number;
  /** Whether the model can attend sparsely at all. */
  readonly calibrated: boolean;
  /** How requests that do not say attend. */
  readonly attention: AttentionRequest;
}

/**
 * What is left out is as the service has it.
 * @throws {RequestError} `invalid_request`; `unsupported` for sparse attention of a model that is not calibrated
 */
export function requestedAttention(given: AttentionFields, context: AttentionContext): AttentionRequest {
  const mode = given?.mode ?? context.attention.mode;
  if (given?.mode === "sparse" && !context.calibrated) {
    throw new RequestError("unsupported", `Cannot attend sparsely: model "${context.modelId}" is not calibrated`, {
      param: "attention.mode",
    });
  }
  const correction = requestedCorrection(given, context.attention.correction);
  return { mode, budget: requestedBudget(given, context), heads: given?.heads ?? context.attention.heads, correction };
}

/** A stride goes with its mode: that of the service counts for requests that keep the service's mode. */
function requestedCorrection(given: AttentionFields, served: CorrectionRequest): CorrectionRequest {
  const mode = given?.correction ?? served.mode;
  const every = given?.correct_every ?? (mode === served.mode ? served.every : "auto");
  if (given?.audit_tokens && !audits(mode)) {
    throw new RequestError("invalid_request", `Cannot list audited tokens: ${mode} corrections check none`, {
      param: "attention.audit_tokens",
    });
  }
  if (every !== 0) return { mode, every, perToken: given?.audit_tokens ?? false };
  if (!audits(mode)) return NO_CORRECTION;
  throw new RequestError("invalid_request", `Cannot correct: ${mode} needs a stride of at least 1, 0 given`, {
    param: "attention.correct_every",
  });
}

/**
 * What is left out is as the service has it; so is the bound of the budget `auto`: the service's number if it has one.
 * @throws {RequestError} `invalid_request` for more positions than the model has, and for fields that need `auto`
 */
function requestedBudget(
  given: AttentionFields,
  { attention: { budget: usual }, maxPositions }: AttentionContext,
): AttentionRequest["budget"] {
  const { budget, coverage, max_budget: atMost } = given ?? {};
  if (typeof budget === "number") checkPositions(budget, maxPositions, "budget");
  if (typeof atMost === "number") checkPositions(atMost, maxPositions, "max_budget");
  const asked = budget ?? usual;
  if (asked === undefined || typeof asked === "number") {
    if (typeof coverage === "number") throw needsAuto("coverage");
    if (typeof atMost === "number") throw needsAuto("max_budget");
    return asked;
  }
  const adaptive = typeof usual === "object" ? usual : { coverage: DEFAULT_COVERAGE, atMost: usual };
  return { coverage: coverage ?? adaptive.coverage, atMost: atMost ?? adaptive.atMost };
}

function checkPositions(positions: number, most: number, field: string): void {
  if (positions <= most) return;
  throw new RequestError(
    "invalid_request",
    `Cannot attend: a budget of ${positions} positions exceeds the model's ${most}`,
    { param: `attention.${field}` },
  );
}

function needsAuto(field: string): RequestError {
  return new RequestError("invalid_request", `Cannot attend: ${field} needs the budget "auto"`, {
    param: `attention.${field}`,
  });
}
