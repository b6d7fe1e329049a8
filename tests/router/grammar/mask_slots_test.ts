/** Slots of short jobs: their order among messages, their bound, failures, and a thread that waits. */

import assert from "node:assert/strict";

import { MaskAnswers, MaskRequests } from "../../../router/grammar/mask_slots.ts";
import { within } from "../../../kernels/within.ts";

const WORDS = 3;

function sides(): [MaskRequests, MaskAnswers] {
  const requests = new MaskRequests(WORDS);
  return [requests, new MaskAnswers(requests.memory)];
}

function job(id: number): Parameters<MaskRequests["post"]>[0] {
  return { id, matcher: id + 1, keep: id + 2, tokens: Uint32Array.of(2 ** 31 + id, id) };
}

/** The thread's part: a mask that names its job. */
function answer(answers: MaskAnswers): void {
  const { mask, ...posted } = answers.next() ?? assert.fail("no job");
  assert.deepEqual(posted, job(posted.id));
  assert.deepEqual([...mask], [0, 0, 0], "the mask of an earlier job is gone");
  mask.fill(2 ** 32 - 1 - posted.id);
  answers.finish("done");
}

Deno.test("MaskRequests.take() gives masks in the order of their jobs, through slots that are used again", () => {
  const [requests, answers] = sides();
  for (let id = 0; id < 300; id += 3) {
    for (let i = id; i < id + 3; i++) requests.post(job(i));
    for (let i = id; i < id + 3; i++) answer(answers);
    for (let i = id; i < id + 3; i++) assert.deepEqual(requests.take(), new Uint32Array(WORDS).fill(2 ** 32 - 1 - i));
  }
});

Deno.test("MaskRequests.canPost() says when the slots are full, and which jobs do not fit", () => {
  const [requests, answers] = sides();
  const tokens = Uint32Array.of(1);
  let posted = 0;
  for (; requests.canPost({ tokens, words: WORDS }) && posted < 1000; posted++) requests.post(job(posted));
  assert.equal(posted, 64);
  answer(answers);
  assert.ok(!requests.canPost({ tokens, words: WORDS }), "its mask was not taken");
  requests.take();
  assert.ok(requests.canPost({ tokens, words: WORDS }));
  assert.ok(!requests.canPost({ tokens, words: WORDS + 1 }));
  assert.ok(!requests.canPost({ tokens: new Uint32Array(9), words: WORDS }));
});

Deno.test("MaskAnswers.next() takes jobs and messages in the order in which they were posted", () => {
  const [requests, answers] = sides();
  requests.post(job(0));
  requests.messagePosted();
  requests.post(job(1));
  answer(answers);
  assert.equal(answers.next(), undefined, "a message comes first");
  answers.messageHandled();
  answer(answers);
});

Deno.test("MaskRequests.skip() passes over a job that failed", async () => {
  const [requests, answers] = sides();
  requests.post(job(0));
  requests.post(job(1));
  assert.ok(answers.next() !== undefined);
  assert.equal(requests.take(), undefined, "it is being computed");
  answers.finish("failed");
  await requests.changed();
  assert.equal(requests.take(), undefined);
  answer(answers);
  requests.skip();
  assert.deepEqual(requests.take()?.[0], 2 ** 32 - 2);
});

/** A thread that does jobs until there are none, and says so. */
const THREAD = `
  import { MaskAnswers } from ${JSON.stringify(import.meta.resolve("../../../router/grammar/mask_slots.ts"))};
  onmessage = ({ data }) => {
    const answers = new MaskAnswers(data);
    for (let job = answers.next(); job !== undefined; job = answers.next()) {
      job.mask[0] = job.id;
      answers.finish("done");
    }
    postMessage("over");
  };`;

Deno.test("MaskRequests wakes a thread that waits, for jobs and for its end", async () => {
  const thread = new Worker(`data:text/javascript,${encodeURIComponent(THREAD)}`, { type: "module" });
  try {
    const over = new Promise((resolve) => thread.onmessage = ({ data }) => resolve(data));
    const [requests] = sides();
    thread.postMessage(requests.memory);
    for (let id = 1; id <= 100; id++) {
      requests.post(job(id));
      await requests.changed();
      assert.equal(requests.take()?.[0], id);
    }
    requests.close();
    assert.equal(await within(60_000, over), "over");
  } finally {
    thread.terminate();
  }
});
