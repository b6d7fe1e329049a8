/** Positions, watermark and attention of one sequence, step by step. */

import assert from "node:assert/strict";
import type { AttentionPolicy } from "../../../router/scheduling/attention_policy.ts";
import { resolveAttention } from "../../../router/scheduling/attention_policy.ts";
import { EventQueue } from "../../../router/scheduling/event_queue.ts";
import type { AttentionRequest, GenerationRequest } from "../../../router/scheduling/generation.ts";
import { Sequence } from "../../../router/scheduling/sequence.ts";
import { FakeGroup } from "../../support/fake_group.ts";
import { generationRequest, NO_CORRECTION, promptOf } from "../../support/generation_request.ts";

const { state } = new FakeGroup();
const model = state.kind === "ready" ? state.model : assert.fail();

const NOTHING = { offset: 0, pages: [] };

function sequenceOf(request: Partial<GenerationRequest>, policy: AttentionPolicy): Sequence {
  const events = new EventQueue(1000, { onRoom: () => {}, onLeave: () => {} });
  return new Sequence({ request: generationRequest(request), model, policy, events, arrival: 0 });
}

function policyOf(mode: AttentionRequest["mode"], budget?: number): AttentionPolicy {
  return resolveAttention({ mode, budget, heads: "kv_head", correction: NO_CORRECTION }, model);
}

/** Runs the next span of at most `rows` rows. @param told what the group reports besides */
function step(sequence: Sequence, rows = 1000, told: { readonly rowsRead?: number } = {}): string {
  const next = sequence.work();
  const work = { ...next, rows: Math.min(rows, next.rows) };
  const span = sequence.span(1, work, []);
  sequence.advance({ work, span }, span.logits === "none" ? { sequence: 1 } : { sequence: 1, token: 3, ...told });
  const kind = span.kind === "prefill" ? span.kind : span.attention;
  return `${kind} ${span.from}+${span.tokens.length} ${span.logits}`;
}

Deno.test("Sequence prefills in chunks, draws after the last one, then decodes row by row", () => {
  const sequence = sequenceOf({ promptTokens: promptOf(100) }, policyOf("dense"));
  sequence.start(1, NOTHING);
  const spans = [step(sequence, 64), step(sequence, 64), step(sequence), step(sequence)];
  assert.deepEqual(spans, ["prefill 0+64 none", "prefill 64+36 last", "dense 100+1 last", "dense 101+1 last"]);
  assert.deepEqual([sequence.cached, sequence.exact, sequence.length], [102, 102, 103]);
});

Deno.test("Sequence.exact stays where the first sparse row begins, and dense rows after it do not move it", () => {
  const sequence = sequenceOf({ promptTokens: promptOf(14) }, policyOf("sparse", 16));
  sequence.start(1, NOTHING);
  const spans = Array.from({ length: 5 }, () => step(sequence));
  assert.deepEqual(spans.slice(1), ["dense 14+1 last", "dense 15+1 last", "sparse 16+1 last", "sparse 17+1 last"]);
  assert.deepEqual([sequence.exact, sequence.cached], [16, 18]);
});

Deno.test("Sequence counts what adaptive rows really read, and expects as much of the next", () => {
  const attention = {
    mode: "sparse",
    budget: { coverage: 0.9, atMost: 20 },
    heads: "kv_head",
    correction: NO_CORRECTION,
  } as const;
  const policy = resolveAttention(attention, model);
  assert.deepEqual(policy.sparse, { budget: 20, heads: "kv_head", coverage: 0.9 });
  const sequence = sequenceOf({ promptTokens: promptOf(19), maxTokens: 100, attention }, policy);
  sequence.start(1, NOTHING);
  step(sequence);
  assert.deepEqual(sequence.usage().attention.budget, undefined);
  assert.equal(step(sequence), "dense 19+1 last");
  const whole = model.layers * 20;
  const roles = model.roles ?? [];
  const most = roles.reduce((sum, role) => sum + (role === "sparse" ? 20 : 21), 0);
  assert.equal(sequence.nextContext(), most / model.layers, "nothing is known yet");
  assert.equal(step(sequence, 1, { rowsRead: 70 }), "sparse 20+1 last");
  assert.equal(sequence.nextContext(), 70 / model.layers);
  step(sequence, 1, { rowsRead: 76 });
  assert.equal(sequence.nextContext(), 73 / model.layers);
  const { mode, budget, coverage, rowsReadPerToken } = sequence.usage().attention;
  assert.deepEqual([mode, budget, coverage, rowsReadPerToken], ["sparse", "auto", 0.9, (whole + 70 + 76) / 3]);
});

Deno.test("Sequence rebuilds what was lost with the kernels that made it, and continues with a decode row", () => {
  const sequence = sequenceOf({ promptTokens: promptOf(64), maxTokens: 100 }, policyOf("dense"));
  sequence.start(1, NOTHING);
  for (let i = 0; i < 20; i++) step(sequence);
  sequence.stop();
  sequence.start(2, { offset: 0, pages: [5] });
  assert.deepEqual([step(sequence), step(sequence), step(sequence)], [
    "dense 64+16 none",
    "dense 80+3 none",
    "dense 83+1 last",
  ]);
  assert.equal(sequence.generated, 21);
  assert.equal(sequence.usage().cachedTokens, 0, "what the replay found is not the client's business");
});

Deno.test("Sequence.advance() refuses an answer to another question", () => {
  const sequence = sequenceOf({}, policyOf("dense"));
  sequence.start(1, NOTHING);
  const work = sequence.work();
  const span = sequence.span(1, work, []);
  for (const wrong of [undefined, { sequence: 2, token: 1 }, { sequence: 1 }]) {
    assert.throws(() => sequence.advance({ work, span }, wrong), { code: "invalid_step" });
  }
});

Deno.test("resolveAttention() takes the client's budget, else the model's", () => {
  const correction = NO_CORRECTION;
  assert.deepEqual(policyOf("sparse"), { sparse: { budget: 16, heads: "kv_head" }, sparseFrom: 0, correction });
  assert.deepEqual(policyOf("auto", 99), { sparse: { budget: 99, heads: "kv_head" }, sparseFrom: 64, correction });
  assert.equal(policyOf("dense").sparseFrom, Infinity);
  const adaptive = {
    mode: "auto",
    budget: { coverage: 0.9, atMost: undefined },
    heads: "all_heads",
    correction: NO_CORRECTION,
  } as const;
  assert.deepEqual(resolveAttention(adaptive, model).sparse, { budget: 16, heads: "all_heads", coverage: 0.9 });
});
