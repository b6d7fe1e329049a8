/** A grammar thread that is given up while it makes a mask in shared memory. */

import assert from "node:assert/strict";
import type { FromGrammarWorker, ToGrammarWorker } from "../../../router/grammar/grammar_thread.ts";
import { MaskRequests } from "../../../router/grammar/mask_slots.ts";
import { LostThreads } from "../../../router/lost_threads.ts";
import { MODEL_DIRECTORY } from "../../support/test_service.ts";
import { until } from "../../support/until.ts";

const WORDS = 4096 / 32;
const ENTRY = new URL("../../../router/grammar/grammar_worker.ts", import.meta.url);

/** Posts a message. @returns what the thread answers */
function ask(worker: Worker, message: ToGrammarWorker): Promise<FromGrammarWorker["kind"]> {
  return new Promise((resolve) => {
    worker.onmessage = ({ data }: MessageEvent<FromGrammarWorker>) => resolve(data.kind);
    worker.postMessage(message);
  });
}

Deno.test("a grammar thread that was given up over a mask is ended, and counts no longer", async () => {
  const worker = new Worker(ENTRY, { type: "module" });
  assert.equal(await ask(worker, { kind: "load", directory: MODEL_DIRECTORY, markers: [] }), "loaded");
  const spec = { kind: "regex", pattern: "[a-z]*" } as const;
  const answer = { keep: 0, tokens: new Uint32Array(), from: 0, words: WORDS };
  assert.equal(await ask(worker, { kind: "job", id: 0, job: { kind: "follow", matcher: 0, spec, ...answer } }), "done");
  const slots = new MaskRequests(WORDS);
  worker.postMessage({ kind: "share", memory: slots.memory } satisfies ToGrammarWorker);
  slots.post({ id: 1, matcher: 0, keep: 0, tokens: new Uint32Array() });
  const lost = new LostThreads(1);
  lost.add(worker);
  assert.ok(lost.isFull);
  slots.close();
  await until(() => !lost.isFull, 5000);
});
