/** Answers with grammars: every draw has the masks of the tokens before it, through batches, corrections, loss and preemption. */

import assert from "node:assert/strict";
import { maskWords } from "../../../kernels/logits/mask_logits.ts";
import { RequestError } from "../../../router/errors.ts";
import type { Constraint, ConstraintHost } from "../../../router/scheduling/constraint.ts";
import type { GenerationRequest } from "../../../router/scheduling/generation.ts";
import type { FakeGroup } from "../../support/fake_group.ts";
import { fakeModel } from "../../support/fake_model.ts";
import { runAlone } from "../../support/fake_tokens.ts";
import { collect, generationRequest, promptOf } from "../../support/generation_request.ts";
import { withScheduler } from "../../support/with_scheduler.ts";

const GRAMMAR = { kind: "any" } as const;
const CONSTRAINED = generationRequest({ promptTokens: promptOf(150), maxTokens: 40, grammar: GRAMMAR });
const WORDS = maskWords(fakeModel({}).vocabSize);

/** Stands for a mask: a number that tells which tokens it was made for. */
function markOf(tokens: ArrayLike<number>): number {
  let mark = 17;
  for (let i = 0; i < tokens.length; i++) mark = (Math.imul(mark, 31) + (tokens[i] ?? 0) + 1) >>> 0;
  return mark;
}

/** Masks that are marks. */
class MarkingHost implements ConstraintHost {
  readonly #delayMs: number;
  readonly #failAt: number;
  open = 0;

  constructor({ delayMs = 0, failAt = Infinity }: { delayMs?: number; failAt?: number } = {}) {
    this.#delayMs = delayMs;
    this.#failAt = failAt;
  }

  follow(): Constraint {
    this.open++;
    return {
      masks: async (tokens, from, words) => {
        await new Promise((resolve) => setTimeout(resolve, this.#delayMs));
        if (tokens.length >= this.#failAt) throw new RequestError("deadline_exceeded", "Cannot follow the grammar");
        const states = Array.from({ length: tokens.length - from + 1 }, (_, i) => markOf(tokens.slice(0, from + i)));
        return Uint32Array.from(states.flatMap((mark) => Array.from({ length: words }, () => mark)));
      },
      close: () => void this.open--,
    };
  }
}

/** Goes through all steps and compares the masks of each span with what its rows follow. @returns draws with masks */
function checkMasks(group: FakeGroup): number {
  const sequences = new Map<number, { readonly prompt: number; readonly tokens: number[] }>();
  let masked = 0;
  for (const { open, spans } of group.steps) {
    for (const { sequence, promptTokens, prefixPages } of open) {
      sequences.set(sequence, { prompt: promptTokens, tokens: new Array(prefixPages.length * 64) });
    }
    for (const { sequence, from, tokens, logits, masks } of spans) {
      const known = sequences.get(sequence);
      assert.ok(known !== undefined);
      known.tokens.length = from;
      known.tokens.push(...tokens);
      if (masks === undefined) continue;
      const rows = logits === "audit" ? tokens.map((_, i) => from + i) : Uint32Array.of(from + tokens.length - 1);
      assert.equal(masks.length, rows.length * WORDS);
      rows.forEach((position, i) => {
        assert.equal(masks[i * WORDS], markOf(known.tokens.slice(known.prompt, position + 1)), `row ${position}`);
        masked++;
      });
    }
  }
  return masked;
}

async function answerOf(
  request: GenerationRequest,
  { host, ...options }: Parameters<typeof withScheduler>[0] & { host: MarkingHost },
  onToken: (group: FakeGroup, count: number) => void = () => {},
): Promise<number> {
  let masked = 0;
  await withScheduler(
    { ...options, scheduler: { ...options.scheduler, constraints: host } },
    async (scheduler, group) => {
      const generation = scheduler.generate(request);
      const { tokens, reason } = await collect(generation, (count) => onToken(group, count));
      assert.deepEqual({ tokens, reason }, runAlone(request));
      assert.equal(host.open, 0, "nothing is left of its grammar");
      masked = checkMasks(group);
    },
  );
  return masked;
}

Deno.test("Scheduler sends the masks of every draw, one each", async () => {
  assert.equal(await answerOf(CONSTRAINED, { host: new MarkingHost() }), 40);
});

Deno.test("Scheduler rebuilds a sequence with the masks of its place", async () => {
  const masked = await answerOf(CONSTRAINED, { host: new MarkingHost() }, (group, count) => {
    if (count !== 20) return;
    group.break();
    setTimeout(() => group.recover(), 10);
  });
  assert.ok(masked >= 40, `${masked}`);
});

Deno.test("Scheduler goes back in the grammar with drafts that are overruled", async () => {
  const request: GenerationRequest = {
    ...CONSTRAINED,
    attention: {
      mode: "sparse",
      budget: 64,
      heads: "kv_head",
      correction: { mode: "lossless", every: 4, perToken: false },
    },
  };
  const masked = await answerOf(request, { host: new MarkingHost(), errs: (position) => position % 3 === 0 });
  assert.ok(masked > 60, `${masked}`);
});

Deno.test("Scheduler goes on with others while masks are late", () => {
  const host = new MarkingHost({ delayMs: 30 });
  return withScheduler({ scheduler: { constraints: host } }, async (scheduler, group) => {
    const free = generationRequest({ promptTokens: promptOf(30, 2), maxTokens: 60 });
    let constrainedDone = false;
    const late = collect(scheduler.generate({ ...CONSTRAINED, maxTokens: 8 })).then((outcome) => {
      constrainedDone = true;
      return outcome;
    });
    await collect(scheduler.generate(free));
    assert.ok(!constrainedDone, "the free answer did not wait");
    assert.equal((await late).tokens.length, 8);
    assert.equal(checkMasks(group), 8);
  });
});

Deno.test("Scheduler ends a sequence whose grammar fails, and nothing else", () => {
  const host = new MarkingHost({ failAt: 5 });
  return withScheduler({ scheduler: { constraints: host } }, async (scheduler) => {
    const free = generationRequest({ promptTokens: promptOf(30, 2), maxTokens: 20 });
    const [failed, other] = await Promise.all([
      collect(scheduler.generate(CONSTRAINED)),
      collect(scheduler.generate(free)),
    ]);
    assert.deepEqual([failed.code, failed.tokens.length], ["deadline_exceeded", 5]);
    assert.deepEqual(other.tokens, runAlone(free).tokens);
    assert.equal(host.open, 0);
  });
});
