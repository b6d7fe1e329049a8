/** Candidates for select layers: which are tried, and that they are compared on the same cases and put in order. */

import assert from "node:assert/strict";

import { type Calibratable, candidateLayers, scoreCandidates } from "../../../engine/evaluation/calibrate.ts";
import { loadTextModel, needleTokens } from "../../../engine/evaluation/needles.ts";
import { layerRoles } from "../../../engine/layer_plan.ts";
import { SessionHost } from "../../../engine/evaluation/hand_session.ts";
import type { Step } from "../../../engine/span.ts";
import { engineFixture, withSession } from "../../support/engine_fixture.ts";
import { FAKE_INFO } from "../../support/fake_engine.ts";
import { FIXTURES } from "../../support/model_directory.ts";

const DIRECTORY = `${FIXTURES}llama-rope3`;
const fixture = engineFixture({ directory: DIRECTORY }, 1024);
const text = await loadTextModel(DIRECTORY);
const STOP = 1;

const NEEDLES = ["It rained. The code is 7. It stopped.", "The code is 9. Nobody knew."].map((text, i) => ({
  id: `case ${i}`,
  text: text.repeat(6),
  question: "What is the code?",
  answer: "79"[i] ?? "",
}));

Deno.test("candidateLayers() tries the third layer alone and with each later one but the last", () => {
  assert.deepEqual(candidateLayers(7), [[2], [2, 3], [2, 4], [2, 5]]);
  assert.deepEqual(candidateLayers(4), [[2]]);
  assert.deepEqual(candidateLayers(3), [[1]]);
  for (const layers of [3, 4, 5, 32]) candidateLayers(layers).forEach((list) => layerRoles(layers, list));
});

Deno.test("candidateLayers() refuses a model that is too small to select", () => {
  assert.throws(() => candidateLayers(2), {
    code: "unsupported_model",
    message: "Cannot calibrate: 2 layers are fewer than 3",
  });
});

/** Six layers; under {2, 4} and {2, 3} every answer token is the likeliest, and under {2, 4} likelier still. */
class FakeEngine implements Calibratable {
  readonly info = { ...FAKE_INFO, layers: 6 };
  readonly decoded: number[] = [];
  #second: number | undefined;

  calibrate({ selectLayers }: { selectLayers: readonly number[] }): void {
    this.#second = selectLayers[1];
  }

  run(step: Step) {
    const spans = step.spans.map(({ sequence, kind, logits, tokens, next = NaN }) => {
      if (kind === "decode") this.decoded.push(...tokens);
      if (logits !== "all") return { sequence };
      const argmax = Uint32Array.of(this.#second === undefined ? next + 1 : next);
      return { sequence, scores: { argmax, logprob: Float32Array.of(-1 / (this.#second ?? 1)) } };
    });
    return Promise.resolve({ index: step.index, spans, timing: { encodeMs: 0, waitMs: 0, totalMs: 0 } });
  }
}

Deno.test("scoreCandidates() compares all candidates on the same rows, and puts the best first", async () => {
  const engine = new FakeEngine();
  const progress: string[] = [];
  const scores = await scoreCandidates(engine, text, {
    needles: NEEDLES,
    budget: 16,
    stop: STOP,
    onProgress: (done, total) => progress.push(`${done}/${total}`),
  });
  assert.deepEqual(scores, [
    { selectLayers: [2, 4], accuracy: 1, logprob: -0.25 },
    { selectLayers: [2, 3], accuracy: 1, logprob: scores[1]?.logprob },
    { selectLayers: [2], accuracy: 0, logprob: -1 },
  ]);
  assert.ok(Math.abs((scores[1]?.logprob ?? 0) + 1 / 3) < 1e-6);
  assert.deepEqual(progress, ["1/2", "2/2"]);
  // Question and answer without its last token, once for each candidate.
  const rows = NEEDLES.flatMap((needle) => {
    const { question } = needleTokens(text, needle);
    const once = [...question, ...text.tokenizer.encode(needle.answer)];
    return [...once, ...once, ...once];
  });
  assert.deepEqual(engine.decoded, rows);
});

Deno.test("scoreCandidates() scores a real model and leaves no sequence open", async () => {
  const scores = await scoreCandidates(fixture.engine, text, {
    needles: NEEDLES,
    budget: 16,
    stop: STOP,
    onProgress: () => {},
  });
  assert.deepEqual(scores.map(({ selectLayers }) => selectLayers), [[2]]);
  assert.ok(scores.every(({ accuracy, logprob }) => accuracy >= 0 && accuracy <= 1 && logprob < 0));
  assert.deepEqual(fixture.engine.info.selectLayers, [2]);
  // Every page is free again: a context that needs them all fits.
  await withSession(new SessionHost(fixture.engine), {}, (session) => session.prefill(new Uint32Array(500), "none"));
});
