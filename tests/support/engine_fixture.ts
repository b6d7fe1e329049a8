/**
 * One engine for all tests of a file, and what they ask of it most: logits of a next token, to the bit. Call
 * `engineFixture()` once, at the top of a test file. Knows sessions; knows no expected values.
 */

import { Engine, type ModelSource } from "../../engine/engine.ts";
import { GREEDY, type Session, SessionHost, type SessionOptions } from "../../engine/evaluation/hand_session.ts";
import type { SamplingSettings, SpanResult, Step, StepResult } from "../../engine/span.ts";
import { testProvider } from "./test_provider.ts";

/** What a test of the engine needs. */
export interface EngineFixture {
  readonly engine: Engine;
  readonly host: SessionHost;
}

/** Awaited maps sleep 10 ms after the queue is idle. */
const MAPS_SETTLE_MS = 30;

/** Registers the hooks that open and close an engine around the tests of the calling file. */
export function engineFixture(model: ModelSource, kvTokens = 8192): EngineFixture {
  let opened: EngineFixture | undefined;
  const current = (): EngineFixture => {
    if (opened === undefined) throw new Error("Cannot use the engine fixture: no test is running");
    return opened;
  };
  Deno.test.beforeAll(async () => {
    const engine = await Engine.open({ model, kvTokens, gpu: testProvider().name });
    opened = { engine, host: new SessionHost(engine) };
    await settleMaps(engine);
  });
  // The op sanitizer reports pending maps.
  Deno.test.afterEach(() => settleMaps(current().engine));
  Deno.test.afterAll(() => current().engine.close());
  return {
    get engine() {
      return current().engine;
    },
    get host() {
      return current().host;
    },
  };
}

/** Waits until no read-back of an engine is pending any more. */
export async function settleMaps({ commands: { gpu } }: Pick<Engine, "commands">): Promise<void> {
  await gpu.mapsSettled();
}

/** Waits until the read-backs of engines that are closed are over too, as the op sanitizer wants it. */
export async function mapsSettled(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, MAPS_SETTLE_MS));
}

/** Greedy, with the log-probabilities of the whole vocabulary: equal ones mean equal logits, bit for bit. */
export function everyLogprob(vocabSize: number): SamplingSettings {
  return { ...GREEDY, topLogprobs: vocabSize };
}

/** Log-probabilities by token, of a result that was asked for all of them. */
export function logprobsOf(result: SpanResult | undefined): Float64Array<ArrayBuffer> {
  const top = result?.logprobs?.top ?? [];
  const logprobs = new Float64Array(top.length);
  for (const { token, logprob } of top) logprobs[token] = logprob;
  return logprobs;
}

/** Runs `body` with a session that is closed afterwards. */
export async function withSession<T>(
  host: SessionHost,
  options: SessionOptions,
  body: (session: Session) => Promise<T>,
): Promise<T> {
  const session = host.open(options);
  try {
    return await body(session);
  } finally {
    await session.close();
  }
}

/** Runs the planned spans of several sessions as one step. */
export function runTogether(
  host: SessionHost,
  plans: readonly Omit<Step, "index" | "deadlineMs">[],
): Promise<StepResult> {
  return host.run({
    open: plans.flatMap(({ open }) => open),
    release: plans.flatMap(({ release }) => release),
    spans: plans.flatMap(({ spans }) => spans),
  });
}
