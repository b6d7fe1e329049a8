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
  readonly #delayMs: (tokens: number) => number;
  readonly #failAt: number;
  readonly #ready: Promise<void> | undefined;
  open = 0;

  constructor(
    { delayMs = () => 0, failAt = Infinity, ready }: {
      delayMs?: (tokens: number) => number;
      failAt?: number;
      /** None is made before. */
      ready?: Promise<void>;
    } = {},
  ) {
    this.#delayMs = delayMs;
    this.#failAt = failAt;
    this.#ready = ready;
  }

  follow(): Constraint {
    this.open++;
    return {
      masks: async (tokens, from, words) => {
        await this.#ready;
        await new Promise((resolve) => setTimeout(resolve, this.#delayMs(tokens.length)));
        if (tokens.length >= this.#failAt) throw new RequestError("deadline_exceeded", "Cannot follow the grammar");
        const states = Array.from({ length: tokens.length - from + 1 }, (_, i) => markOf(tokens.slice(0, from + i)));
        return Uint32Array.from(states.flatMap((mark) => Array.from({ length: words }, () => mark)));
      },
      close: () => void this.open--,
    };
  }
}

/** A mask of a row that is void. */
const ALL_TOKENS = 0xffffffff;

/** Draws of a test. */
interface Draws {
  readonly masked: number;
  /** Whose masks came too late. */
  readonly free: number;
  /** Whose masks came with their step, not while it was computed. */
  readonly carried: number;
}

/** Goes through all steps and compares the masks of each span with what its rows follow. @param answer of its sequence */
function checkMasks(group: FakeGroup, answer: readonly number[] = []): Draws {
  const sequences = new Map<number, { readonly prompt: number; readonly tokens: number[] }>();
  let [masked, free, carried] = [0, 0, 0];
  for (const { open, spans } of group.steps) {
    for (const { sequence, promptTokens, prefixPages } of open) {
      sequences.set(sequence, { prompt: promptTokens, tokens: new Array(prefixPages.length * 64) });
    }
    for (const { sequence, from, logits, masks, masksFollow, sampled, tokens: asked } of spans) {
      const known = sequences.get(sequence);
      assert.ok(known !== undefined);
      const tokens = sampled ? Uint32Array.of(answer[from - known.prompt] ?? 0) : asked;
      known.tokens.length = from;
      known.tokens.push(...tokens);
      if (masks === undefined) continue;
      const rows = logits === "audit" ? tokens.map((_, i) => from + i) : Uint32Array.of(from + tokens.length - 1);
      assert.equal(masks.length, rows.length * WORDS);
      rows.forEach((position, i) => {
        if (masks[i * WORDS] === ALL_TOKENS) return free++;
        assert.equal(masks[i * WORDS], markOf(known.tokens.slice(known.prompt, position + 1)), `row ${position}`);
        masked++;
        if (!masksFollow) carried++;
      });
    }
  }
  return { masked, free, carried };
}

async function answerOf(
  request: GenerationRequest,
  { host, ...options }: Parameters<typeof withScheduler>[0] & { host: MarkingHost },
  onToken: (group: FakeGroup, count: number) => void = () => {},
): Promise<Draws> {
  let draws: Draws | undefined;
  await withScheduler(
    { ...options, scheduler: { ...options.scheduler, constraints: host } },
    async (scheduler, group) => {
      const generation = scheduler.generate(request);
      const { tokens, reason } = await collect(generation, (count) => onToken(group, count));
      assert.deepEqual({ tokens, reason }, runAlone(request));
      assert.equal(host.open, 0, "nothing is left of its grammar");
      draws = checkMasks(group, tokens);
    },
  );
  assert.ok(draws !== undefined);
  return draws;
}

Deno.test("Scheduler sends the masks of every draw, one each", async () => {
  assert.equal((await answerOf(CONSTRAINED, { host: new MarkingHost() })).masked, 40);
});

for (const stepsInFlight of [1, 2]) {
  Deno.test(`Scheduler sends masks while their step is computed, ${stepsInFlight} steps in flight`, async () => {
    const { masked, carried } = await answerOf(CONSTRAINED, { host: new MarkingHost(), stepsInFlight });
    assert.equal(masked, 40);
    // That of the first token, which a prompt's chunk draws; others only where this machine was slow.
    assert.ok(carried >= 1 && carried < 30, `${carried}`);
  });

  Deno.test(`Scheduler computes rows again whose masks came too late, ${stepsInFlight} steps in flight`, async () => {
    const host = new MarkingHost({ delayMs: (tokens) => (tokens % 9 === 5 ? 60 : 0) });
    const { masked, free, carried } = await answerOf(CONSTRAINED, { host, stepsInFlight });
    assert.equal(masked, 40);
    assert.ok(free >= 1, "no row was void");
    assert.ok(carried >= 2, "after a late mask the next one is waited for");
  });
}

Deno.test("Scheduler rebuilds a sequence with the masks of its place", async () => {
  for (const stepsInFlight of [1, 2]) {
    const { masked } = await answerOf(CONSTRAINED, { host: new MarkingHost(), stepsInFlight }, (group, count) => {
      if (count !== 20) return;
      group.break();
      setTimeout(() => group.recover(), 10);
    });
    assert.ok(masked >= 40, `${masked}`);
  }
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
  const { masked } = await answerOf(request, { host: new MarkingHost(), errs: (position) => position % 3 === 0 });
  assert.ok(masked > 60, `${masked}`);
});

Deno.test("Scheduler goes on with others while masks are late", () => {
  const freed = Promise.withResolvers<void>();
  const host = new MarkingHost({ delayMs: () => 30, ready: freed.promise });
  return withScheduler({ scheduler: { constraints: host } }, async (scheduler, group) => {
    const free = generationRequest({ promptTokens: promptOf(30, 2), maxTokens: 60 });
    let constrainedDone = false;
    const late = collect(scheduler.generate({ ...CONSTRAINED, maxTokens: 8 })).then((outcome) => {
      constrainedDone = true;
      return outcome;
    });
    await collect(scheduler.generate(free));
    assert.ok(!constrainedDone, "the free answer did not wait");
    freed.resolve();
    assert.equal((await late).tokens.length, 8);
    assert.deepEqual(checkMasks(group), { masked: 8, free: 0, carried: 8 });
  });
});

Deno.test("Scheduler ends a sequence whose grammar fails, and nothing else", async () => {
  for (const stepsInFlight of [1, 2]) await endsAlone(stepsInFlight);
});

function endsAlone(stepsInFlight: number): Promise<void> {
  const host = new MarkingHost({ failAt: 5 });
  return withScheduler({ scheduler: { constraints: host }, stepsInFlight }, async (scheduler) => {
    const free = generationRequest({ promptTokens: promptOf(30, 2), maxTokens: 20 });
    const [failed, other] = await Promise.all([
      collect(scheduler.generate(CONSTRAINED)),
      collect(scheduler.generate(free)),
    ]);
    assert.deepEqual([failed.code, failed.tokens.length], ["deadline_exceeded", 5]);
    assert.deepEqual(other.tokens, runAlone(free).tokens);
    assert.equal(host.open, 0);
  });
}
