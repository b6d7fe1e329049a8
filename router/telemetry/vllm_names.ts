/**
 * Our metrics under the names that vLLM gives to the same figures, for dashboards, autoscalers and gateways that know those.
 * Knows names; where a figure of vLLM has no like here, it has no alias.
 */

import type { Labels } from "./metrics_registry.ts";

const PREFIX = "tidepool_";

/** What both count alike, without the prefix. */
const SHARED = [
  "num_requests_running",
  "num_requests_waiting",
  "kv_cache_usage_perc",
  "prefix_cache_queries_total",
  "prefix_cache_hits_total",
  "prompt_tokens_total",
  "generation_tokens_total",
  "num_preemptions_total",
  "request_success_total",
  "time_to_first_token_seconds",
  "request_time_per_output_token_seconds",
  "e2e_request_latency_seconds",
  "request_queue_time_seconds",
  "request_prefill_time_seconds",
  "request_decode_time_seconds",
] as const;

/** By our names. */
export const VLLM_NAMES: ReadonlyMap<string, string> = new Map(SHARED.map((name) => [PREFIX + name, `vllm:${name}`]));

/** vLLM's label for the engines behind one server, which all of its metrics carry: here they are groups. */
export function vllmLabels({ group = "0", ...others }: Labels): Labels {
  return { ...others, engine: group };
}
