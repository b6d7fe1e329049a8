/**
 * What the scheduler may expect of every `Group`, real or fake: one suite. Knows the interface alone; how a group is
 * made, and how one of its workers is lost, is up to the caller.
 */

import assert from "node:assert/strict";
import { GREEDY, type HandSpan, SessionHost } from "../../engine/evaluation/hand_session.ts";
import { PageMap } from "../../engine/page_map.ts";
import type { Step, StepResult } from "../../engine/span.ts";
import type { Group, GroupState, ModelInfo } from "../../router/group/group.ts";
import { REFUSED_STEPS } from "./refused_steps.ts";
import { open, prefill, step } from "../support/step_parts.ts";
import { until } from "../support/until.ts";

/** A group of at least one worker that forms by itself. */
export interface GroupUnderTest {
  readonly group: Group;
  /** A worker is lost while the next step runs; another takes its place sooner or later. */
  loseNextStep(): void;
  /** Frees what the test has made, after the group is closed. */
  close(): Promise<void>;
}

/** For engines to load, on a busy machine. */
const READY_MS = 60_000;

/** Registers the suite. */
export function groupContract(name: string, start: () => Promise<GroupUnderTest>): void {
  Deno.test(`Group contract: ${name}`, async (t) => {
    const subject = await start();
    const { group } = subject;
    const states: GroupState[] = [];
    group.onState((state) => states.push(state));
    try {
      await until(() => group.state.kind === "ready", READY_MS);
      await t.step("describes its model once it is ready", () => describesModel(group));
      const caller = new Caller(group);
      await t.step("gives each span its result, in the order of the spans", () => answersSpans(caller));
      await t.step("draws the same token for the same rows, wherever they lie", () => repeatsItself(caller));
      await t.step("decodes beside a prompt that its workers share out", () => decodesBesidePrompt(caller));
      await t.step("reports as many log-probabilities as were asked for", () => reportsLogprobs(caller));
      await t.step("changes nothing when it refuses a step", () => refusesWhole(caller));
      await t.step("answers steps in the order of the calls", () => answersInOrder(caller));
      await t.step("ends the epoch before the step that was lost fails", () => losesWorker(caller, subject));
      await t.step("runs no step once it is closed, and reports that state last", () => closes(caller, states));
    } finally {
      await group.close();
      await subject.close();
    }
  });
}

/** Sequences of a group that is ready, with pages and indices given out as a router does. */
class Caller {
  readonly group: Group;
  host: SessionHost;
  #index = 0;
  #sequences = 0;

  constructor(group: Group) {
    this.group = group;
    this.host = this.#hostOf(this.model);
  }

  get model(): ModelInfo {
    const { state } = this.group;
    return state.kind === "ready" ? state.model : assert.fail(`the group is ${state.kind}`);
  }

  /** Forgets all sequences, as the group has. */
  renew(): void {
    this.host = this.#hostOf(this.model);
  }

  run(parts: Partial<Step>): Promise<StepResult> {
    return this.group.run(step({ ...parts, index: ++this.#index }), []);
  }

  /** Ids are never reused while a group lives. */
  nextSequence(): number {
    return 1000 + this.#sequences++;
  }

  #hostOf(info: ModelInfo): SessionHost {
    const run = (step: Step) => this.run(step);
    return new SessionHost({ info, run }, new PageMap(info.slices), 1 + 100 * this.#sequences++);
  }
}

function describesModel(group: Group): void {
  const { state } = group;
  assert.ok(state.kind === "ready");
  assert.ok(state.epoch >= 1);
  assert.ok(group.stepsInFlight >= 1);
  const { model } = state;
  assert.equal(model.slices.reduce((sum, pages) => sum + pages, 0), model.kvPages);
  assert.equal(model.adapters.length, model.slices.length);
}

async function answersSpans({ host, model }: Caller): Promise<void> {
  const [first, second] = [host.open(), host.open()];
  const plans = [
    first.plan({ kind: "prefill", tokens: tokensOf(70), logits: "none" }),
    second.plan({ kind: "prefill", tokens: tokensOf(5), logits: "last" }),
  ];
  const { spans, timing } = await host.run({
    open: plans.flatMap((plan) => plan.open),
    release: [],
    spans: plans.flatMap((plan) => plan.spans),
  });
  assert.deepEqual(spans.map(({ sequence }) => sequence), [first.sequence, second.sequence]);
  assert.equal(spans[0]?.token, undefined, "no token was asked for");
  const token = spans[1]?.token;
  assert.ok(token !== undefined && token >= 0 && token < model.vocabSize);
  assert.ok(timing.totalMs >= 0);
  await first.close();
  await second.close();
}

/** Long enough to be shared out by two workers, each of which then waits for what the other computes. */
const SHARED_PROMPT = 300;

async function decodesBesidePrompt({ host }: Caller): Promise<void> {
  const draw = async (how: "in one step" | "apart") => {
    const [decoding, other] = [host.open(), host.open()];
    await decoding.prefill(tokensOf(9), "none");
    const plans = [
      decoding.plan({ kind: "decode", attention: "dense", tokens: Uint32Array.of(7), logits: "last" }),
      other.plan({ kind: "prefill", tokens: tokensOf(SHARED_PROMPT), logits: "last" }),
    ];
    const tokens: (number | undefined)[] = [];
    for (const some of how === "apart" ? plans.map((plan) => [plan]) : [plans]) {
      const parts = { open: some.flatMap(({ open }) => open), spans: some.flatMap(({ spans }) => spans) };
      const { spans } = await host.run({ ...parts, release: [] });
      tokens.push(...spans.map(({ token }) => token));
    }
    for (const session of [decoding, other]) await session.close();
    return tokens;
  };
  const apart = await draw("apart");
  // The second time, what the rows follow was recorded before.
  for (const _ of [1, 2]) assert.deepEqual(await draw("in one step"), apart);
}

async function repeatsItself({ host }: Caller): Promise<void> {
  const draws: (number | undefined)[] = [];
  const neighbour = host.open();
  for (const attempt of [1, 2]) {
    const session = host.open();
    const drawn = await session.prefill(tokensOf(100));
    draws.push(drawn.token, (await session.decode(drawn.token ?? assert.fail())).token);
    await session.close();
    // Takes the pages that were free first, so that the next attempt gets others.
    if (attempt === 1) await neighbour.prefill(tokensOf(65), "none");
  }
  assert.deepEqual(draws.slice(2), draws.slice(0, 2));
  await neighbour.close();
}

async function reportsLogprobs({ host }: Caller): Promise<void> {
  for (const topLogprobs of [undefined, 0, 3]) {
    const session = host.open({ sampling: { ...GREEDY, topLogprobs } });
    const { logprobs } = await session.prefill(tokensOf(8));
    assert.equal(logprobs?.top.length, topLogprobs);
    if (logprobs !== undefined) assert.ok(logprobs.logprob <= 0);
    await session.close();
  }
}

async function refusesWhole(caller: Caller): Promise<void> {
  const { host, group, model } = caller;
  const [kept, untouched] = [host.open(), host.open()];
  await kept.prefill(tokensOf(10));
  const expected = await untouched.prefill(tokensOf(10));
  for (const [fault, parts] of REFUSED_STEPS) {
    const stranger = caller.nextSequence();
    const wrong = parts({ kept, stranger, model, map: host.map });
    await assert.rejects(caller.run(wrong), { code: "invalid_step" }, fault);
    assert.equal(group.state.kind, "ready", `${fault}: the group goes on`);
  }
  const token = expected.token ?? assert.fail();
  const [after, beside] = [await kept.decode(token), await untouched.decode(token)];
  assert.equal(after.token, beside.token, "the sequence is as it was");
  await kept.close();
  await untouched.close();
}

async function answersInOrder({ host, group }: Caller): Promise<void> {
  const session = host.open();
  const { token } = await session.prefill(tokensOf(10));
  const rows: HandSpan[] = Array.from({ length: group.stepsInFlight }, (_, i) => ({
    kind: "decode",
    attention: "dense",
    logits: "last",
    tokens: Uint32Array.of(i === 0 ? token ?? assert.fail() : 0),
    ...(i === 0 ? {} : { sampled: true }),
  }));
  const order: number[] = [];
  await Promise.all(rows.map(async (row, i) => {
    assert.notEqual((await session.run(row)).token, undefined);
    order.push(i);
  }));
  assert.deepEqual(order, rows.map((_, i) => i));
  await session.close();
}

async function losesWorker(caller: Caller, subject: GroupUnderTest): Promise<void> {
  const { group, host } = caller;
  const epoch = group.state.kind === "ready" ? group.state.epoch : assert.fail();
  const lost = host.open();
  await lost.prefill(tokensOf(10));
  subject.loseNextStep();
  await assert.rejects(lost.decode(1), (error: { code?: string }) => {
    assert.equal(error.code, "worker_lost");
    assert.ok(group.state.kind !== "ready" || group.state.epoch > epoch);
    return true;
  });
  await until(() => group.state.kind === "ready", READY_MS);
  assert.ok(group.state.kind === "ready" && group.state.epoch > epoch);
  caller.renew();
  await assert.rejects(caller.run({ spans: [prefill(lost.sequence, 10, 1)] }), { code: "invalid_step" });
  const fresh = caller.host.open();
  assert.notEqual((await fresh.prefill(tokensOf(10))).token, undefined);
  await fresh.close();
}

async function closes(caller: Caller, states: readonly GroupState[]): Promise<void> {
  const { group } = caller;
  await group.close();
  assert.equal(group.state.kind, "closed");
  assert.equal(states.at(-1)?.kind, "closed");
  const sequence = caller.nextSequence();
  const parts = { open: [open(sequence)], spans: [prefill(sequence, 0, 1, { newPages: Uint32Array.of(0) })] };
  await assert.rejects(caller.run(parts), { code: "group_unavailable" });
}

function tokensOf(length: number): Uint32Array {
  return Uint32Array.from({ length }, (_, i) => 1 + (i * 7) % 300);
}
