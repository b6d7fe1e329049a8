/** A few hundred odd bodies against the application, and a judge that sees what it should. */

import assert from "node:assert/strict";

import { TestService } from "../support/test_service.ts";
import { campaign, type Send } from "./campaign.ts";
import { judge } from "./judge.ts";
import { type ApiDocument, SECRET, type Shot, Shots } from "./shots.ts";

/** What the service under test answers for. */
const MODEL = "org/tide";

async function documentOf(service: TestService): Promise<ApiDocument> {
  return await (await service.app.request("/openapi.json")).json();
}

Deno.test("no odd body gets a 5xx, no answer, or an error that is no OpenAI error", async () => {
  using service = await TestService.open();
  const shots = new Shots(await documentOf(service), 1, MODEL);
  const send: Send = async ({ path, body, headers }, signal) => {
    const response = await service.app.request(path, { method: "POST", body, headers, signal });
    return {
      status: response.status,
      type: response.headers.get("content-type") ?? "",
      text: await response.text(),
    };
  };
  const { findings, answers } = await campaign(shots, send, { count: 800 });
  const shown = findings.map(({ shot, complaints, answer }) =>
    `#${shot.index} ${shot.path} ${shot.how}: ${complaints.join("; ")} ${answer?.text.slice(0, 200)}`
  );
  assert.deepEqual(shown, []);
  assert.deepEqual(service.internalErrors, []);
  for (const path of shots.paths) {
    const of = (status: number) => answers.get(`${path} ${status}`) ?? 0;
    assert.ok(of(200) >= 10 && of(400) >= 10, `${path}: ${of(200)} answered, ${of(400)} refused`);
  }
});

Deno.test("Shots.at() is a function of seed and index", async () => {
  using service = await TestService.open();
  const document = await documentOf(service);
  const [shots, same, other] = [
    new Shots(document, 7, MODEL),
    new Shots(document, 7, MODEL),
    new Shots(document, 8, MODEL),
  ];
  const indices = Array.from({ length: 50 }, (_, i) => i);
  assert.deepEqual(indices.map((i) => same.at(i)), indices.map((i) => shots.at(i)));
  assert.notDeepEqual(indices.map((i) => other.at(i)), indices.map((i) => shots.at(i)));
});

const SHOT: Shot = { index: 0, path: "/x", body: new TextEncoder().encode("{}"), headers: {}, how: "" };

Deno.test("judge() accepts sound answers and complains about the others", async (t) => {
  const error = (fields: object) =>
    JSON.stringify({ error: { message: "Cannot do it: too much", type: "t", param: null, code: null, ...fields } });
  const cases = [
    [200, "application/json", "{}", []],
    [400, "application/json", error({}), []],
    [200, "text/event-stream", 'data: {"a":1}\n\ndata: [DONE]\n\n', []],
    [500, "application/json", error({}), ["status 500"]],
    [404, "text/plain", "404 Not Found", ["an error that is no OpenAI error"]],
    [400, "application/json", error({ message: "no" }), ["an error without a message"]],
    [400, "application/json", error({ message: "a".repeat(700) }), ["an error message of 700 characters"]],
    [400, "application/json", error({ message: `Cannot read ${SECRET}` }), ["an error that repeats the prompt"]],
    [400, "application/json", error({ type: null }), ["an error without a type"]],
    [400, "application/json", error({ param: 3 }), ["an error without param and code"]],
    [400, "application/json", error({ message: "at file:///srv/a" }), ["leaks file:\\/\\/"]],
    [200, "application/json", "{", ["an answer that is no JSON"]],
    [200, "text/event-stream", 'data: {"a":1}\n\n', ["a stream that ends without [DONE] or an error"]],
    [200, "text/event-stream", "", ["a stream that ends without [DONE] or an error"]],
    [200, "text/event-stream", "data: {\n\ndata: [DONE]\n\n", ["an event that is no JSON"]],
    [200, "text/event-stream", `data: ${error({})}\n\n`, [`a stream that failed: ${error({})}`]],
  ] as const;
  for (const [status, type, text, complaints] of cases) {
    await t.step(`${status} ${type} ${text.slice(0, 40)}`, () => {
      assert.deepEqual(judge(SHOT, { status, type, text }), complaints);
    });
  }
});

Deno.test("campaign() reports answers that do not come", async () => {
  using service = await TestService.open();
  const shots = new Shots(await documentOf(service), 1, MODEL);
  const never: Send = (_, signal) =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  const late = await campaign(shots, never, { count: 2, answerMs: 20 });
  assert.deepEqual(late.findings.map(({ complaints }) => complaints), [
    ["no answer within 20 ms"],
    ["no answer within 20 ms"],
  ]);
  const broken = await campaign(shots, () => Promise.reject(new Error("reset")), { count: 1 });
  assert.deepEqual(broken.findings[0]?.complaints, ["no answer: Error: reset"]);
});
