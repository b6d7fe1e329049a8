/** The frame codec: what goes in comes out with its types, and hostile bytes end in a ProtocolError. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { encode } from "@msgpack/msgpack";
import { decodeMessage, decodePrefix, FRAME_LIMITS, PREFIX_BYTES } from "../../workers/codec.ts";
import { ProtocolError } from "../../workers/errors.ts";
import { FrameReader } from "../../workers/frame_reader.ts";
import { scanHeader } from "../../workers/header_scan.ts";
import { encodeFrame } from "../support/encode_frame.ts";

const LITTLE_ENDIAN = true;

/** Hands out bytes in pieces of the given size, then the end. */
function sourceOf(bytes: Uint8Array, piece = 7): { read(into: Uint8Array): Promise<number | null> } {
  let at = 0;
  return {
    read(into) {
      if (at === bytes.length) return Promise.resolve(null);
      const chunk = bytes.subarray(at, at + Math.min(piece, into.length));
      into.set(chunk);
      at += chunk.length;
      return Promise.resolve(chunk.length);
    },
  };
}

async function readAll(bytes: Uint8Array, piece?: number): Promise<unknown[]> {
  const reader = new FrameReader(sourceOf(bytes, piece), FRAME_LIMITS);
  const messages: unknown[] = [];
  for (let frame = await reader.next(); frame !== undefined; frame = await reader.next()) {
    messages.push(decodeMessage(frame.header, frame.payload));
  }
  return messages;
}

function concat(frames: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(frames.reduce((sum, frame) => sum + frame.length, 0));
  let at = 0;
  for (const frame of frames) {
    all.set(frame, at);
    at += frame.length;
  }
  return all;
}

const leaf = fc.oneof(
  fc.uint32Array({ maxLength: 40 }).map((a) => Uint32Array.from(a)),
  fc.float32Array({ maxLength: 40 }).map((a) => Float32Array.from(a)),
  fc.maxSafeInteger().map((n) => n === 0 ? 0 : n),
  fc.double().map((n) => n === 0 ? 0 : n),
  fc.string(),
  fc.boolean(),
  fc.constant(null),
);
const key = fc.string({ minLength: 1 }).filter((name) => name !== "__proto__" && name !== "toString");
const message = fc.dictionary(
  key,
  fc.oneof(leaf, fc.array(leaf, { maxLength: 5 }), fc.dictionary(key, leaf, { noNullPrototype: true })),
  { noNullPrototype: true },
);

Deno.test("encodeFrame() and FrameReader return every message with its types, however the bytes are cut", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(message, { maxLength: 4 }), fc.integer({ min: 1, max: 100 }), async (messages, piece) => {
      const frames = messages.map((m) => encodeFrame(m));
      assert.deepEqual(await readAll(concat(frames), piece), messages);
    }),
    { numRuns: 100 },
  );
});

Deno.test("encodeFrame() aligns tensors to 16 bytes and keeps views of larger buffers apart", async () => {
  const pool = Float32Array.from({ length: 100 }, (_, i) => i);
  const sent = { a: pool.subarray(3, 8), b: Uint32Array.of(1, 2, 3), c: pool.subarray(50, 51), d: new Uint32Array(0) };
  const [received] = await readAll(encodeFrame(sent)) as [typeof sent];
  assert.deepEqual(received, sent);
  for (const tensor of Object.values(received)) assert.equal(tensor.byteOffset % 16, 0);
});

Deno.test("encodeFrame() leaves undefined fields out", async () => {
  assert.deepEqual(await readAll(encodeFrame({ a: undefined, b: [1], c: { d: undefined } })), [{ b: [1], c: {} }]);
});

Deno.test("encodeFrame() refuses typed arrays without a dtype, and works on afterwards", async () => {
  assert.throws(() => encodeFrame({ a: Uint32Array.of(9), b: new Uint8Array(3) }), ProtocolError);
  assert.deepEqual(await readAll(encodeFrame({ c: Uint32Array.of(1) })), [{ c: Uint32Array.of(1) }]);
});

Deno.test("FrameReader reads a payload larger than its buffer", async () => {
  const big = Uint32Array.from({ length: 100_000 }, (_, i) => i * 3);
  assert.deepEqual(await readAll(encodeFrame({ big }), 50_000), [{ big }]);
});

Deno.test("FrameReader reports a frame cut off at any byte", async () => {
  const frame = encodeFrame({ kind: "result", tokens: Uint32Array.of(1, 2, 3) });
  for (let end = 1; end < frame.length; end++) {
    await assert.rejects(readAll(frame.subarray(0, end)), { code: "protocol", message: /stream ended after/ });
  }
});

Deno.test("FrameReader refuses lengths over the limit before anything else is read", async () => {
  for (const [header, payload] of [[0xffffffff, 0], [1 << 21, 0], [1, 0xffffffff], [0, 0]] as const) {
    const prefix = new Uint8Array(Uint32Array.of(header, payload).buffer);
    assert.throws(() => decodePrefix(prefix), ProtocolError);
    const endless = { read: (into: Uint8Array) => Promise.resolve((into.set(prefix), prefix.length)) };
    await assert.rejects(new FrameReader(endless, FRAME_LIMITS).next(), { code: "protocol" });
  }
});

Deno.test("encodeFrame() refuses a frame over lowered limits, naming both sizes", () => {
  const limits = { headerBytes: 64, payloadBytes: 32 };
  assert.throws(() => encodeFrame({ text: "x".repeat(100) }, limits), /header of 10\d bytes exceeds the limit of 64/);
  assert.throws(() => encodeFrame({ a: new Uint32Array(9) }, limits), /payload of 36 bytes exceeds the limit of 32/);
});

Deno.test("decodeMessage() turns any garbage into a ProtocolError or a value, and never hangs", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 60 }), (bytes) => {
      try {
        decodeMessage(Uint8Array.from(bytes), new ArrayBuffer(16));
      } catch (error) {
        assert.ok(error instanceof ProtocolError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

Deno.test("decodeMessage() survives any corrupt byte of a real frame", () => {
  const frame = encodeFrame({ kind: "result", list: [1, 2.5, "three"], tokens: Uint32Array.of(1, 2, 3) });
  const view = new DataView(frame.buffer);
  const headerBytes = view.getUint32(0, LITTLE_ENDIAN);
  const header = frame.slice(PREFIX_BYTES, PREFIX_BYTES + headerBytes);
  for (let at = 0; at < header.length; at++) {
    for (const value of [0x00, 0x7f, 0x80, 0xc1, 0xd6, 0xdd, 0xff]) {
      const corrupt = header.slice();
      corrupt[at] = value;
      try {
        decodeMessage(corrupt, frame.buffer.slice(PREFIX_BYTES + headerBytes));
      } catch (error) {
        assert.ok(error instanceof ProtocolError, String(error));
      }
    }
  }
});

Deno.test("decodeMessage() refuses a tensor outside the payload, unaligned or of unknown dtype", () => {
  const reference = (dtype: number, offset: number, length: number) => {
    const bytes = new Uint8Array(12);
    bytes.set([0xc7, 9, 1, dtype]);
    const view = new DataView(bytes.buffer);
    view.setUint32(4, offset, LITTLE_ENDIAN);
    view.setUint32(8, length, LITTLE_ENDIAN);
    return bytes;
  };
  const payload = new ArrayBuffer(32);
  assert.deepEqual(decodeMessage(reference(0, 16, 4), payload), new Uint32Array(4));
  assert.throws(() => decodeMessage(reference(0, 16, 5), payload), /ends at byte 36 of a payload of 32/);
  assert.throws(() => decodeMessage(reference(0, 0xfffffff0, 0xffffffff), payload), ProtocolError);
  assert.throws(() => decodeMessage(reference(0, 4, 1), payload), /not a multiple of 16/);
  assert.throws(() => decodeMessage(reference(9, 0, 1), payload), /dtype 9 is unknown/);
});

Deno.test("scanHeader() accepts what the format allows and measures it exactly", () => {
  fc.assert(fc.property(fc.jsonValue(), (value) => scanHeader(encode(value))));
  assert.throws(() => scanHeader(Uint8Array.of(0x01, 0x02)), /1 bytes follow/);
});

Deno.test("scanHeader() refuses nested arrays that claim more items than there are bytes", () => {
  const nested = new Uint8Array(5 * 1000);
  for (let at = 0; at < nested.length; at += 5) nested.set([0xdd, 0x00, 0x10, 0x00, 0x00], at);
  assert.throws(() => scanHeader(nested), /1048576 values are missing/);
});
