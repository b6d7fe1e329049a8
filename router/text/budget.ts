/**
 * How many positions a request wants sparse layers to read: a number of them, or as few as cover a share of the attention.
 * Knows the fields of a request and the service's own answer; knows nothing of the model but its longest context.
 */

import { RequestError } from "../errors.ts";
import type { ChatBody } from "../http/schemas.ts";
import { DEFAULT_COVERAGE } from "../scheduling/attention_policy.ts";
import type { AttentionRequest } from "../scheduling/generation.ts";

type Budget = AttentionRequest["budget"];

/**
 * What is left out is as the service has it; so is the bound of the budget `auto`: the service's number if it has one.
 * @throws {RequestError} `invalid_request` for more positions than the model has, and for fields that need `auto`
 */
export function requestedBudget(
  given: ChatBody["attention"],
  { attention: { budget: usual }, maxPositions }: {
    readonly attention: Pick<AttentionRequest, "budget">;
    readonly maxPositions: number;
  },
): Budget {
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
