/** How the moments of a request become one record. */

import assert from "node:assert/strict";
import type { GenerationRequest } from "../../../router/scheduling/generation.ts";
import {
  nowMs,
  type ReceivedRequest,
  type RequestRecord,
  RequestRecorder,
} from "../../../router/telemetry/request_record.ts";
import { ACCEPTED, USAGE } from "../../support/request_records.ts";

const received: ReceivedRequest = { operation: "chat", id: "a", traceparent: "00-client" };

function recorder(): { recorder: RequestRecorder; traced: RequestRecord[]; sunk: RequestRecord[] } {
  const traced: RequestRecord[] = [];
  const sunk: RequestRecord[] = [];
  const trace = ({ traceparent }: ReceivedRequest) => ({
    traceparent: `${traceparent}-below`,
    end: (record: RequestRecord) => void traced.push(record),
  });
  return { recorder: new RequestRecorder(trace, [(record) => void sunk.push(record)]), traced, sunk };
}

function sequenceOf(id: string): GenerationRequest {
  return { id } as GenerationRequest;
}

Deno.test("RequestRecorder hands one record with all moments to the trace and to every sink", () => {
  const { recorder: requests, traced, sunk } = recorder();
  const before = nowMs();
  const observation = requests.received(received);
  assert.equal(observation.traceparent, "00-client-below");
  observation.accepted(ACCEPTED);
  requests.admitted(sequenceOf("a"), 5);
  requests.admitted(sequenceOf("a-1"), 9);
  requests.admitted(sequenceOf("somebody else"), 99);
  observation.firstToken();
  observation.keepAlive();
  observation.keepAlive();
  assert.equal(sunk.length, 0);
  observation.ended({ kind: "finished", reasons: ["stop"], usage: USAGE });
  assert.equal(sunk.length, 1);
  assert.equal(traced[0], sunk[0]);
  const record = sunk[0];
  assert.ok(record !== undefined);
  const moments = [before, record.receivedAt, record.admittedAt, record.firstTokenAt, record.endedAt, nowMs()];
  assert.ok(moments.every((moment, i) => moment !== undefined && moment >= (moments[i - 1] ?? 0)), String(moments));
  assert.deepEqual([record.id, record.queueMs, record.keepAlives, record.accepted], ["a", 9, 2, ACCEPTED]);
});

Deno.test("RequestRecorder leaves moments that never came undefined", () => {
  const { recorder: requests, sunk } = recorder();
  const observation = requests.received(received);
  observation.ended({ kind: "failed", code: "invalid_request", status: 400 });
  requests.admitted(sequenceOf("a"), 1);
  const { accepted, admittedAt, queueMs, firstTokenAt } = sunk[0] ?? {};
  assert.deepEqual([accepted, admittedAt, queueMs, firstTokenAt], [undefined, undefined, undefined, undefined]);
});
