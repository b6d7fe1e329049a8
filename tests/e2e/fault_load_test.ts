/** The judge of answers under faults finds what it is meant to find. */

import assert from "node:assert/strict";

import { type Answer, AnswerTally, ask, type Ending } from "./fault_load.ts";

const answer = (ending: Ending, text: string): Answer => ({ ending, text, reason: "", silenceMs: 1 });

Deno.test("AnswerTally counts endings, and answers that are not the fault-free ones or their beginning", () => {
  const tally = new AnswerTally(["a b c", "d e f"]);
  tally.add(0, answer("whole", "a b c"));
  tally.add(1, answer("error event", "d e"));
  tally.add(1, answer("refused", ""));
  assert.deepEqual(tally.differing, []);
  tally.add(0, answer("whole", "a b"));
  tally.add(1, answer("no end", "d x"));
  assert.deepEqual(tally.endings, { whole: 2, "error event": 1, "no end": 1, refused: 1 });
  assert.deepEqual(tally.differing, [{ request: 0, text: "a b" }, { request: 1, text: "d x" }]);
});

Deno.test("ask() tells a whole stream from one with an error, one that just closes, and a refusal", async () => {
  const chunk = `data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n`;
  const failure = `data: {"error":{"message":"Cannot","type":"server_error","param":null,"code":"worker_lost"}}\n\n`;
  const answers: Readonly<Record<string, Response>> = {
    "/whole/v1/chat/completions": new Response(`${chunk}data: [DONE]\n\n`),
    "/failed/v1/chat/completions": new Response(chunk + failure),
    "/closed/v1/chat/completions": new Response(chunk),
  };
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    (request) => answers[new URL(request.url).pathname] ?? new Response(null, { status: 503 }),
  );
  const endings: Record<string, string> = {};
  for (const name of ["whole", "failed", "closed", "refused"]) {
    const { ending, text, reason } = await ask(`http://127.0.0.1:${server.addr.port}/${name}`, {});
    endings[name] = [ending, text, reason].join("|");
  }
  assert.deepEqual(endings, {
    whole: "whole|hi|",
    failed: "error event|hi|worker_lost",
    closed: "no end|hi|",
    refused: "refused||503",
  });
});
