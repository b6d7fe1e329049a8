/** Records of requests as the HTTP layer and the scheduler would make them. */

import type { RequestOrigin } from "../../router/access/request_context.ts";
import type { GenerationUsage } from "../../router/scheduling/generation.ts";
import type { AcceptedRequest } from "../../router/http/request_observer.ts";
import type { RequestRecord } from "../../router/telemetry/request_record.ts";
import { NO_CORRECTION } from "./generation_request.ts";

/** What a sparse answer of 5 tokens to a prompt of 100 cost. */
export const USAGE: GenerationUsage = {
  promptTokens: 100,
  completionTokens: 5,
  cachedTokens: 64,
  attention: {
    mode: "sparse",
    budget: 64,
    selectLayers: [2, 6],
    context: 105,
    rowsReadPerToken: 900,
    correction: {
      mode: "audit",
      every: "auto",
      stride: 6,
      corrections: 1,
      rows: 4,
      rollbacks: 0,
      dropped: 0,
      audit: { checked: 3, agreed: 2, divergence: 0.5, measured: 2, firstDivergence: 1 },
    },
  },
};

/** A streamed request for that answer. */
export const ACCEPTED: AcceptedRequest = {
  model: "tide-10m",
  stream: true,
  choices: 1,
  promptTokens: 100,
  maxTokens: 5,
  temperature: 0.5,
  topP: 0.9,
  topK: 7,
  attention: { mode: "auto", budget: undefined, heads: "kv_head", correction: NO_CORRECTION },
};

/** Who asked for it. */
export const ORIGIN: RequestOrigin = {
  requestId: "req-1",
  client: "127.0.0.1",
  key: "alice",
  method: "POST",
  path: "/v1/chat/completions",
};

/** Received at second 1000, queued for 0.25 s, first token after 2.5 s, four more in 2 s. */
export function finishedRecord(changes: Partial<RequestRecord> = {}): RequestRecord {
  return {
    operation: "chat",
    id: "chatcmpl-1",
    origin: ORIGIN,
    receivedAt: 1_000_000,
    accepted: ACCEPTED,
    admittedAt: 1_000_500,
    queueMs: 250,
    firstTokenAt: 1_002_500,
    endedAt: 1_004_500,
    keepAlives: 3,
    outcome: { kind: "finished", reasons: ["stop"], usage: USAGE },
    ...changes,
  };
}
