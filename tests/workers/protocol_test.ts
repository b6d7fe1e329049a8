/** Messages survive the wire, and those of the wrong shape are refused with the field named. */

import assert from "node:assert/strict";
import type { ExchangeTiming, Step, StepResult } from "../../engine/span.ts";
import { decodeMessage, PREFIX_BYTES } from "../../workers/codec.ts";
import { parsePeerMessage } from "../../workers/peer_protocol.ts";
import { parseRouterMessage, parseWorkerMessage } from "../../workers/protocol.ts";
import { FAKE_INFO } from "../support/fake_engine.ts";
import { encodeFrame } from "../support/encode_frame.ts";

const LITTLE_ENDIAN = true;

function overTheWire(message: unknown): unknown {
  const frame = encodeFrame(message);
  const headerBytes = new DataView(frame.buffer).getUint32(0, LITTLE_ENDIAN);
  const payloadAt = PREFIX_BYTES + headerBytes;
  return decodeMessage(frame.subarray(PREFIX_BYTES, payloadAt), frame.buffer.slice(payloadAt));
}

const step: Step = {
  index: 7,
  open: [{
    sequence: 3,
    sampling: {
      temperature: 0.7,
      topP: 0.9,
      topK: 0,
      minP: 0,
      repetitionPenalty: 1.1,
      presencePenalty: -0.5,
      frequencyPenalty: 0,
      logitBias: [[5, -100], [6, 2.5]],
      seed: 4294967295,
      minTokens: 0,
      suppressed: [2],
      topLogprobs: undefined,
    },
    sparse: { budget: 64, heads: "kv_head", coverage: 0.98 },
    promptTokens: 130,
    pageOffset: 3,
    prefixPages: Uint32Array.of(4, 9),
    prefixTokens: new Uint32Array(0),
    audited: true,
  }],
  release: [1, 2],
  spans: [
    {
      kind: "prefill",
      sequence: 3,
      from: 128,
      tokens: Uint32Array.of(1, 2),
      logits: "last",
      newPages: Uint32Array.of(8),
    },
    {
      kind: "decode",
      attention: "sparse",
      sequence: 4,
      from: 9,
      tokens: Uint32Array.of(5),
      logits: "all",
      next: 6,
      newPages: new Uint32Array(0),
    },
    {
      kind: "decode",
      attention: "dense",
      sequence: 5,
      from: 9,
      tokens: Uint32Array.of(0),
      logits: "last",
      newPages: new Uint32Array(0),
      sampled: true,
      masksFollow: true,
    },
  ],
  deadlineMs: 5000.5,
};

const result: StepResult = {
  index: 7,
  spans: [
    {
      sequence: 3,
      token: 11,
      logprobs: { logprob: -0.25, top: [{ token: 11, logprob: -0.25 }, { token: 1, logprob: -Infinity }] },
    },
    { sequence: 4, token: 12, scores: { logprob: Float32Array.of(-1, -2), argmax: Uint32Array.of(1, 2) } },
    { sequence: 5, rowsRead: 1234.5 },
  ],
  timing: { encodeMs: 0.1, waitMs: 2, totalMs: 2.2, replicas: { chosen: 512, missing: 20 } },
};

const tag = { epoch: 3, step: 7, batch: 0, layer: 2 };

const exchange: ExchangeTiming = {
  ms: { queries: 0, keys: 0, states: 1.5, rows: 0.1, candidates: 2, replicas: 0.5 },
  readMs: 3,
  bytes: { queries: 0, keys: 0, states: 16_384, rows: 0, candidates: 512, replicas: 4096 },
  counts: { queries: 0, keys: 0, states: 32, rows: 1, candidates: 2, replicas: 2 },
};

Deno.test("parsePeerMessage() gives back every message of a peer, and nothing else", () => {
  const rows = [Float32Array.of(1, 2), new Float32Array(0)];
  const messages = [
    { kind: "queries", ...tag, rows },
    { kind: "keys", ...tag, rows },
    { kind: "states", ...tag, o: rows, lse: [Float32Array.of(-1e30), Float32Array.of(0)] },
    { kind: "rows", ...tag, rows: [] },
    { kind: "replicas", ...tag, rows },
  ];
  for (const message of messages) assert.deepEqual(parsePeerMessage(overTheWire(message)), message);
  const cases: readonly (readonly [unknown, RegExp])[] = [
    [{ kind: "queries", ...tag, rows: Float32Array.of(1) }, /message\.rows must be an array/],
    [{ kind: "rows", ...tag, rows: [Uint32Array.of(1)] }, /message\.rows\[0\] must be a Float32Array/],
    [{ kind: "states", ...tag, epoch: -1, o: [], lse: [] }, /message\.epoch/],
    [
      { kind: "step" },
      /message\.kind must be one of queries, keys, states, tokens, rows, replicas, not step/,
    ],
  ];
  for (const [value, message] of cases) assert.throws(() => parsePeerMessage(value), { code: "protocol", message });
});

Deno.test("parseRouterMessage() gives back every message of a router", () => {
  const messages = [
    { kind: "load", load: { model: { directory: "/models/a" }, kvTokens: "auto" } },
    { kind: "load", load: { model: { random: "tiny" }, kvTokens: 4096, workersOnHost: 2, replicas: true } },
    { kind: "load", load: { model: { random: "tiny" }, kvTokens: "auto", copies: "whole", groupWorkers: 3 } },
    { kind: "step", step, traceparents: ["00-a-b-01"] },
    { kind: "ping", id: 3 },
    {
      kind: "form",
      epoch: 3,
      index: 1,
      members: [{ hostname: "127.0.0.1", port: 8100 }, { hostname: "worker-1", port: 8100 }],
      weights: [100, 33],
      matrix: true,
      alike: true,
      replicaPages: 64,
      sparseExchange: "rows",
      deadlineMs: 5000,
    },
    { kind: "selection", ...tag, lengths: Uint32Array.of(2, 0), positions: Uint32Array.of(4, 5) },
    { kind: "masks", step: 7, masks: Uint32Array.of(0xffffffff, 5) },
    { kind: "drain" },
  ];
  for (const message of messages) assert.deepEqual(parseRouterMessage(overTheWire(message)), message);
});

Deno.test("parseWorkerMessage() gives back every message of a worker", () => {
  const messages = [
    { kind: "hello", pid: 12 },
    { kind: "loading", doneBytes: 5, totalBytes: 2 ** 40 },
    { kind: "loaded", info: FAKE_INFO },
    { kind: "loaded", info: { ...FAKE_INFO, roles: undefined, sparse: { budget: 64, sparseFrom: 1024 } } },
    { kind: "result", result },
    { kind: "refused", index: 7, code: "kv_exhausted", message: "Cannot append" },
    { kind: "failed", code: "unknown", message: "" },
    { kind: "result", result: { ...result, timing: { ...result.timing, exchange } } },
    { kind: "pong", id: 0 },
    { kind: "leaving" },
    { kind: "formed", epoch: 3 },
    {
      kind: "candidates",
      ...tag,
      rows: [{ sequence: 3, position: 9, budget: 16, sets: 1 }, {
        sequence: 4,
        position: 90,
        budget: 64,
        coverage: 0.9,
        sets: 1,
      }],
      lengths: Uint32Array.of(2, 0),
      positions: Uint32Array.of(4, 5),
      values: Float32Array.of(0.5, 1),
    },
    { kind: "stalled", epoch: 3, step: 7, on: [1, 2] },
    { kind: "severed", epoch: 3, code: "peer_lost", message: "Cannot reach worker 1", peer: 1 },
    { kind: "severed", epoch: 3, code: "peer_late", message: "Cannot form group" },
  ];
  for (const message of messages) assert.deepEqual(parseWorkerMessage(overTheWire(message)), message);
});

Deno.test("parseRouterMessage() refuses wrong shapes and names the field", () => {
  const [span] = step.spans;
  const withStep = (change: object) => ({ kind: "step", step: { ...step, ...change }, traceparents: [] });
  const cases: readonly (readonly [unknown, RegExp])[] = [
    [null, /message must be a map, not null/],
    [[], /message must be a map, not Array/],
    [{ kind: "format" }, /message\.kind must be one of load, step, ping, form, selection, masks, drain, not format/],
    [{ kind: "constructor" }, /message\.kind must be one of/],
    [{ kind: "ping", id: -1 }, /message\.id must be a non-negative integer, not -1/],
    [{ kind: "ping", id: "1" }, /message\.id/],
    [{ kind: "load", load: { model: {}, kvTokens: 1 } }, /message\.load\.model\.directory must be a string/],
    [{ kind: "load", load: { model: { random: "a" }, kvTokens: "all" } }, /message\.load\.kvTokens/],
    [withStep({ release: 5 }), /message\.step\.release must be an array, not 5/],
    [
      withStep({ spans: [{ ...span, tokens: [1] }] }),
      /message\.step\.spans\[0\]\.tokens must be a Uint32Array, not Array/,
    ],
    [withStep({ spans: [{ ...span, tokens: Float32Array.of(1) }] }), /tokens must be a Uint32Array, not Float32Array/],
    [
      withStep({ spans: [{ ...span, kind: "decode" }] }),
      /message\.step\.spans\[0\]\.attention must be one of dense, sparse/,
    ],
    [withStep({ open: [{ ...step.open[0], sparse: undefined }] }), /message\.step\.open\[0\]\.sparse must be a map/],
  ];
  for (const [value, message] of cases) {
    assert.throws(() => parseRouterMessage(value), { code: "protocol", message });
  }
});
