/**
 * Finds the select layers of a model: for each candidate layer r after the first select layer, how well sparse decoding
 * with {first, r} reproduces what dense decoding says about needles. Knows cases and layers; writes no file.
 */

import { at } from "../../kernels/at.ts";
import { EngineError } from "../errors.ts";
import { type NeedleCase, needleTokens, type TextModel } from "./needles.ts";
import type { Calibration } from "../layer_plan.ts";
import { type Session, SessionHost, type SessionRunner } from "./hand_session.ts";

/** The usual first select layer: the layers before it are dense, cheap, and unlike the others. */
const FIRST_SELECT = 2;

/** An engine whose layers can be planned again between steps. */
export interface Calibratable extends SessionRunner {
  calibrate(calibration: Calibration): void;
}

/** How well one choice of select layers did. */
export interface CandidateScore {
  readonly selectLayers: readonly number[];
  /** Share of the cases whose every answer token is the likeliest under sparse attention too. */
  readonly accuracy: number;
  /** Mean log-probability of the answers' tokens: decides between candidates of equal accuracy. */
  readonly logprob: number;
}

/** What to try, and on what. */
export interface CalibrateOptions {
  readonly needles: readonly NeedleCase[];
  /** Small, so that a bad choice shows. */
  readonly budget: number;
  /** Token that ends an answer; part of what must be reproduced. */
  readonly stop: number;
  /** Called after each needle. */
  readonly onProgress: (done: number, total: number) => void;
}

/**
 * The choices that are tried: the first select layer alone, and with each later one.
 * @throws {EngineError} `unsupported_model` when there is no room for a layer before and one after
 */
export function candidateLayers(layers: number): readonly (readonly number[])[] {
  if (layers < 3) throw new EngineError("unsupported_model", `Cannot calibrate: ${layers} layers are fewer than 3`);
  const first = Math.min(FIRST_SELECT, layers - 2);
  const seconds = Array.from({ length: Math.max(0, layers - 2 - first) }, (_, i) => first + 1 + i);
  return [[first], ...seconds.map((second) => [first, second])];
}

/**
 * Tries every candidate; best first. Leaves the engine planned by the last one tried.
 * @throws {EngineError} `unsupported_model` when the model has too few layers
 */
export async function scoreCandidates(
  engine: Calibratable,
  model: TextModel,
  options: CalibrateOptions,
): Promise<CandidateScore[]> {
  const host = new SessionHost(engine);
  const candidates = candidateLayers(engine.info.layers);
  const sums = candidates.map((selectLayers) => ({ selectLayers, right: 0, logprob: 0, tokens: 0 }));
  for (const [i, needle] of options.needles.entries()) {
    const { text, question } = needleTokens(model, needle);
    const answer = [...model.tokenizer.encode(needle.answer), options.stop];
    const shared = host.open();
    try {
      await shared.prefill(text, "none");
      for (const sum of sums) {
        const { selectLayers } = sum;
        engine.calibrate({ selectLayers, budget: options.budget, sparseFrom: 0 });
        const session = host.share(shared, text.length, { sparse: { budget: options.budget, heads: "kv_head" } });
        const scored = await forceAnswer(session, text.subarray(session.length), { question, answer });
        sum.right += scored.every(({ correct }) => correct) ? 1 : 0;
        sum.logprob += scored.reduce((total, { logprob }) => total + logprob, 0);
        sum.tokens += scored.length;
      }
    } finally {
      await shared.close();
    }
    options.onProgress(i + 1, options.needles.length);
  }
  return sums
    .map(({ selectLayers, right, logprob, tokens }) => ({
      selectLayers,
      accuracy: right / options.needles.length,
      logprob: logprob / tokens,
    }))
    .sort((a, b) => b.accuracy - a.accuracy || b.logprob - a.logprob);
}

/** Feeds question and answer row by row under sparse attention, and scores the answer; closes the session. */
async function forceAnswer(
  session: Session,
  rest: Uint32Array,
  { question, answer }: { readonly question: Uint32Array; readonly answer: readonly number[] },
): Promise<{ logprob: number; correct: boolean }[]> {
  try {
    if (rest.length > 0) await session.prefill(rest, "none");
    const rows = [...question, ...answer];
    const scored: { logprob: number; correct: boolean }[] = [];
    for (let i = 0; i + 1 < rows.length; i++) {
      const token = at(rows, i);
      const next = at(rows, i + 1);
      if (i + 1 < question.length) {
        await session.decode(token, "sparse", "none");
        continue;
      }
      const { logprob, argmax } = await session.scoreNext(token, next, "sparse");
      scored.push({ logprob, correct: argmax === next });
    }
    return scored;
  } finally {
    await session.close();
  }
}
