/** The flags of `bench`, and what they mean together. Knows names and bounds; measures nothing. */

import type { Flags, FlagValues } from "../../command.ts";
import { UsageError } from "../../errors.ts";
import { MODEL_FLAGS } from "../../model_choice.ts";

/** Flags of `bench`. */
export const BENCH_FLAGS = {
  ...MODEL_FLAGS,
  workers: {
    kind: "integers",
    min: 1,
    max: 64,
    default: [1],
    help: "numbers of workers to measure with, in turn",
  },
  groups: {
    kind: "integers",
    min: 1,
    max: 64,
    help: "measure only the throughput of N groups, e.g. 1,2: --chats prompts of up to " +
      "--batch-context tokens at a time, with answers of --tokens (default: off)",
  },
  chats: { kind: "integer", min: 1, max: 4096, default: 32, help: "chats in flight while groups are timed" },
  seconds: { kind: "integer", min: 1, max: 3600, default: 20, help: "how long groups are timed, in seconds" },
  contexts: { kind: "integers", min: 1, max: 2 ** 24, default: [256, 1024], help: "context lengths in tokens" },
  budget: { kind: "integer", min: 16, max: 2 ** 20, default: 256, help: "positions a sparse layer reads" },
  tokens: {
    kind: "integer",
    min: 2,
    max: 10000,
    default: 128,
    help: "tokens to decode and time at each context, dense and sparse",
  },
  untimed: {
    kind: "integer",
    min: 1,
    max: 10000,
    default: 100,
    help: "tokens to decode before timing starts, while compilers and clocks settle",
  },
  chunk: { kind: "integer", min: 16, max: 8192, default: 512, help: "prompt tokens per prefill step" },
  fill: {
    kind: "choice",
    choices: ["prefill", "copied"],
    default: "prefill",
    help: "how the KV cache is filled: prefill reads (and times) a prompt of each context's length; copied joins the " +
      "pages of many short prompts, which saves minutes with a large model at long contexts",
  },
  prompts: {
    kind: "integers",
    min: 1,
    max: 2 ** 24,
    help: "with --fill copied: lengths of prompts to read and time as well (default: none)",
  },
  corrections: {
    kind: "integers",
    min: 2,
    max: 4096,
    help: "measure sparse decoding with a correction every N tokens (default: off)",
  },
  agreement: {
    kind: "text",
    value: "A,…",
    help: "measure lossless rounds, for drafts of which this share (0 to 1) agrees (default: off)",
  },
  together: {
    kind: "integers",
    min: 1,
    max: 64,
    help:
      "with --agreement: also measure lossless rounds of N sequences of the longest context together (default: off)",
  },
  cycles: { kind: "integer", min: 2, max: 1000, default: 3, help: "fewest cycles to time for each correction stride" },
  batch: {
    kind: "integers",
    min: 1,
    max: 256,
    help: "measure N sequences of mixed lengths decoding together, e.g. 1,8,32,64 (default: off)",
  },
  batchContext: {
    kind: "integer",
    min: 4,
    max: 2 ** 24,
    default: 2048,
    help: "longest sequence of a batch; the shortest is a quarter of it",
  },
  profile: { kind: "switch", help: "time every kernel on the GPU's clock, and the rest of a step" },
  profileOnly: { kind: "switch", help: "only --profile: no worker is started" },
  json: { kind: "text", value: "FILE", help: "also write every figure to a file" },
  compare: { kind: "text", value: "FILE", help: "also print ratios to the figures of an earlier --json file" },
} as const satisfies Flags;

/** What `bench` gets for its flags. */
export type BenchValues = FlagValues<typeof BENCH_FLAGS>;

/**
 * Checks flags that depend on each other.
 * @returns the shares of `--agreement`; none when it is not given
 * @throws {UsageError}
 */
export function checkFlags({ workers, kvTokens, agreement, together }: BenchValues): readonly number[] {
  const most = Math.max(...workers);
  if (kvTokens.length > 1 && kvTokens.length !== most) {
    const given = `[${kvTokens.join(", ")}]`;
    throw new UsageError(
      `Cannot deal KV capacity: one for all or one for each of ${most} workers is needed, given ${given}`,
    );
  }
  const agreements = agreement === undefined ? [] : parseAgreements(agreement);
  if (together !== undefined && agreements.length === 0) {
    throw new UsageError("Cannot measure sequences together: --together needs --agreement");
  }
  return agreements;
}

/**
 * Shares from 0 to 1, comma-separated.
 * @throws {UsageError}
 */
export function parseAgreements(text: string): readonly number[] {
  return text.split(",").map((part) => {
    const value = part.trim() === "" ? NaN : Number(part);
    if (value >= 0 && value <= 1) return value;
    throw new UsageError(
      `Cannot parse --agreement: must be a number from 0 to 1, or several, comma-separated, given "${text}"`,
    );
  });
}
