/** What a person can set for the answers of a conversation, and as the API takes it. */

/** Everything that can be set; undefined: the service's own default. */
export interface Settings {
  readonly system: string;
  readonly maxTokens: number | undefined;
  readonly temperature: number | undefined;
  readonly topP: number | undefined;
  readonly topK: number | undefined;
  readonly minP: number | undefined;
  readonly repetitionPenalty: number | undefined;
  readonly seed: number | undefined;
  readonly attention: "auto" | "dense" | "sparse";
  /** `auto`: as few positions as cover `coverage` of the attention. */
  readonly budget: number | "auto" | undefined;
  readonly coverage: number | undefined;
  readonly heads: "kv_head" | "query_head" | "all_heads" | undefined;
  readonly correction: "off" | "refresh" | "audit" | "lossless" | undefined;
}

/** The service decides everything. */
export const DEFAULT_SETTINGS: Settings = {
  system: "",
  maxTokens: undefined,
  temperature: undefined,
  topP: undefined,
  topK: undefined,
  minP: undefined,
  repetitionPenalty: undefined,
  seed: undefined,
  attention: "auto",
  budget: undefined,
  coverage: undefined,
  heads: undefined,
  correction: undefined,
};

/** The fields of a request, without those that are left to the service. */
export function requestFields(settings: Settings): Readonly<Record<string, unknown>> {
  const { attention: mode, budget, coverage, heads, correction } = settings;
  const attention = {
    ...(mode !== "auto" && { mode }),
    budget,
    ...(budget === "auto" && { coverage }),
    heads,
    correction,
  };
  const fields = {
    "max_tokens": settings.maxTokens,
    temperature: settings.temperature,
    "top_p": settings.topP,
    "top_k": settings.topK,
    "min_p": settings.minP,
    "repetition_penalty": settings.repetitionPenalty,
    seed: settings.seed,
    attention: Object.values(attention).some((value) => value !== undefined) ? attention : undefined,
  };
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}
