/** Headers that lie, shards that are missing, and that nothing but an EngineError comes of it; then reading and digest. */

import assert from "node:assert/strict";
import fc from "fast-check";

import { EngineError } from "../../../engine/errors.ts";
import { openSafetensors } from "../../../engine/model/safetensors.ts";
import { headerLength, parseHeader } from "../../../engine/model/safetensors_header.ts";
import { FIXTURES, readFixture, withChangedFixture, withFiles } from "../../support/model_directory.ts";

interface Entry {
  readonly dtype?: unknown;
  readonly shape?: unknown;
  readonly "data_offsets"?: unknown;
}

const LITTLE_ENDIAN = true;

/** A file as the format describes it. */
function encode(header: Readonly<Record<string, Entry>> | string, dataBytes: number): Uint8Array<ArrayBuffer> {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const file = new Uint8Array(8 + json.length + dataBytes);
  new DataView(file.buffer).setUint32(0, json.length, LITTLE_ENDIAN);
  file.set(json, 8);
  for (let i = 0; i < dataBytes; i++) file[8 + json.length + i] = i;
  return file;
}

const SOUND = {
  b: { dtype: "F16", shape: [2, 3], "data_offsets": [0, 12] },
  a: { dtype: "F32", shape: [], "data_offsets": [12, 16] },
  c: { dtype: "BF16", shape: [0, 5], "data_offsets": [16, 16] },
};

Deno.test("openSafetensors() gives type, shape and bytes of each tensor", async () => {
  await withFiles({ "model.safetensors": encode({ "__metadata__": {}, ...SOUND }, 16) }, async (directory) => {
    using files = await openSafetensors(directory);
    const facts = [...files.tensors].map(([name, { dtype, shape, bytes }]) => ({ name, dtype, shape, bytes }));
    assert.deepEqual(facts, [
      { name: "b", dtype: "F16", shape: [2, 3], bytes: 12 },
      { name: "a", dtype: "F32", shape: [], bytes: 4 },
      { name: "c", dtype: "BF16", shape: [0, 5], bytes: 0 },
    ]);
    assert.deepEqual(await files.read("a"), Uint8Array.of(12, 13, 14, 15));
    assert.deepEqual(await files.read("c"), new Uint8Array(0));
    assert.deepEqual(await files.readRange("b", 5, 3), Uint8Array.of(5, 6, 7));
    const into = new Uint8Array(4);
    assert.equal(await files.read("a", into), into);
    assert.equal(into[0], 12);
    await assert.rejects(files.read("a", new Uint8Array(5)), /4 bytes do not fit exactly in 5$/);
    await assert.rejects(files.readRange("b", 10, 3), /bytes 10 \+ 3 are outside its 12$/);
    await assert.rejects(files.readRange("b", -1, 3), RangeError);
    await assert.rejects(files.read("d"), { code: "invalid_model", message: /expected a tensor d, found none$/ });
  });
});

Deno.test("TensorFiles.read() keeps reads of one file apart when they are asked for at once", async () => {
  await withFiles({ "model.safetensors": encode(SOUND, 16) }, async (directory) => {
    using files = await openSafetensors(directory);
    const reads = await Promise.all(Array.from({ length: 12 }, (_, i) => files.readRange("b", i, 1)));
    assert.deepEqual(reads.map(([byte]) => byte), Array.from({ length: 12 }, (_, i) => i));
  });
});

Deno.test("openSafetensors() reads shards as one", async () => {
  using files = await openSafetensors(`${FIXTURES}mistral`);
  const { "weight_map": index } = await readFixture<{ "weight_map": object }>("mistral/model.safetensors.index.json");
  assert.deepEqual([...files.tensors.keys()].sort(), Object.keys(index).sort());
  assert.equal((await files.read("lm_head.weight")).length, 576 * 64 * 2);
});

const LIES: readonly (readonly [what: string, file: Uint8Array<ArrayBuffer>, message: RegExp])[] = [
  ["no bytes", new Uint8Array(0), /model\.safetensors: expected at least 8 bytes, found 0$/],
  [
    "a header beyond the file",
    encode(SOUND, 16).slice(0, 40),
    /expected a header of at most 32 bytes \(file of 40\), found/,
  ],
  ["a header of 2^63 bytes", new Uint8Array(16).fill(0x7f), /expected a header of at most 8 bytes/],
  ["a header that is not JSON", encode("{", 0), /expected a JSON object/],
  ["a header that is a list", encode("[]", 0), /expected a JSON object, given \[\]/],
  ["a tensor that is a number", encode(`{"a":1}`, 0), /tensor "a": expected a JSON object, given 1$/],
  ["a truncated file", encode(SOUND, 15), /expected \d+ bytes to hold tensor "a", found \d+$/],
  ["bytes after the last tensor", encode(SOUND, 17), /expected \d+ bytes by its header, found \d+$/],
  ["a gap", encode({ a: { dtype: "F32", shape: [1], "data_offsets": [4, 8] } }, 8), /"a" to start at 0, found 4$/],
  [
    "an overlap",
    encode({
      a: { dtype: "F32", shape: [2], "data_offsets": [0, 8] },
      b: { dtype: "F32", shape: [2], "data_offsets": [4, 12] },
    }, 12),
    /tensor "b" to start at 8, found 4$/,
  ],
  [
    "a shape that needs other bytes",
    encode({ a: { dtype: "F32", shape: [3], "data_offsets": [0, 8] } }, 8),
    /tensor "a": data_offsets must be 12 bytes apart, for F32 \[3\], given \[0,8\]$/,
  ],
  [
    "a shape whose product overflows",
    encode({ a: { dtype: "F32", shape: [2 ** 40, 2 ** 40], "data_offsets": [0, 8] } }, 8),
    /data_offsets must be .* bytes apart/,
  ],
  ["a negative size", encode({ a: { dtype: "F32", shape: [-1], "data_offsets": [0, 4] } }, 4), /shape must be a list/],
  ["offsets in reverse", encode({ a: { dtype: "F32", shape: [1], "data_offsets": [4, 0] } }, 4), /two ascending/],
  ["three offsets", encode({ a: { dtype: "F32", shape: [1], "data_offsets": [0, 4, 8] } }, 4), /two ascending/],
  ["no dtype", encode({ a: { shape: [1], "data_offsets": [0, 4] } }, 4), /dtype must be the name of a type/],
];

for (const [what, file, message] of LIES) {
  Deno.test(`openSafetensors() refuses ${what}`, async () => {
    await withFiles({ "model.safetensors": file }, async (directory) => {
      await assert.rejects(openSafetensors(directory), { name: "EngineError", code: "invalid_model", message });
    });
  });
}

Deno.test("openSafetensors() names the tensor of a type we do not read", async () => {
  const file = encode({ "x.qweight": { dtype: "I32", shape: [1], "data_offsets": [0, 4] } }, 4);
  await withFiles({ "model.safetensors": file }, async (directory) => {
    await assert.rejects(openSafetensors(directory), {
      code: "unsupported_model",
      message: /tensor "x\.qweight": dtype must be F32, F16 or BF16, given "I32"$/,
    });
  });
});

const INDEX = "model.safetensors.index.json";
const FIRST = "model-00001-of-00002.safetensors";
const SECOND = "model-00002-of-00002.safetensors";

Deno.test("openSafetensors() names what is wrong between index and shards", async () => {
  const cases = [
    [{ [FIRST]: undefined }, /model-00001-of-00002\.safetensors: no such file$/],
    [{ [INDEX]: undefined }, /expected model\.safetensors or model\.safetensors\.index\.json, found neither$/],
    [{ [INDEX]: { "weight_map": { x: FIRST } } }, /00001.*expects tensor "x" here, found none$/],
    [
      { [INDEX]: { "weight_map": { x: "../model.safetensors" } } },
      /weight_map: x must be the name of a \.safetensors file/,
    ],
    [{ [INDEX]: { "weight_map": { x: 3 } } }, /weight_map: x must be the name of a \.safetensors file/],
    [{ [INDEX]: { "weight_map": {} } }, /weight_map must be an object with at least one tensor/],
    [{ [INDEX]: {} }, /weight_map must be an object, given nothing$/],
    [{ [SECOND]: encode({}, 0) }, /00002.*expects tensor "[^"]+" here, found none$/],
  ] as const;
  for (const [changes, message] of cases) {
    await withChangedFixture("mistral", changes, async (directory) => {
      await assert.rejects(openSafetensors(directory), { code: "invalid_model", message });
    });
  }
});

Deno.test("TensorFiles.read() says so when a file shrinks after it was opened", async () => {
  await withFiles({ "model.safetensors": encode(SOUND, 16) }, async (directory) => {
    using files = await openSafetensors(directory);
    await Deno.truncate(`${directory}/model.safetensors`, 100);
    await assert.rejects(files.read("b"), { code: "invalid_model", message: /expected \d+ bytes, found 100$/ });
  });
});

async function digestOf(fixture: string, changes: Parameters<typeof withChangedFixture>[1] = {}): Promise<string> {
  let digest = "";
  await withChangedFixture(fixture, changes, async (directory) => {
    using files = await openSafetensors(directory);
    digest = await files.digest();
  });
  return digest;
}

Deno.test("TensorFiles.digest() changes with a weight and with the configuration, and not from run to run", async () => {
  const plain = await digestOf("llama");
  assert.match(plain, /^[0-9a-f]{64}$/);
  assert.equal(await digestOf("llama"), plain);
  const weights = await Deno.readFile(`${FIXTURES}llama/model.safetensors`);
  weights[weights.length - 1] = (weights.at(-1) ?? 0) ^ 1;
  assert.notEqual(await digestOf("llama", { "model.safetensors": weights }), plain);
  const config = await readFixture<object>("llama/config.json");
  assert.notEqual(await digestOf("llama", { "config.json": { ...config, "rope_theta": 9999 } }), plain);
});

Deno.test("TensorFiles.digest() does not depend on how the tensors are spread over files", async () => {
  const tensor = { dtype: "F32", shape: [1], "data_offsets": [0, 4] };
  const second = { ...tensor, "data_offsets": [4, 8] };
  const whole = encode({ a: tensor, b: second }, 8);
  // The data of `b` in a shard of its own, with the bytes it has in the whole file.
  const ofB = encode({ b: tensor }, 4);
  ofB.set(whole.subarray(-4), ofB.length - 4);
  const digests: string[] = [];
  const shards = { "1.safetensors": encode({ a: tensor }, 4), "2.safetensors": ofB };
  const index = { "weight_map": { a: "1.safetensors", b: "2.safetensors" } };
  for (const files of [{ "model.safetensors": whole }, { ...shards, [INDEX]: index }]) {
    await withFiles({ "config.json": "{}", ...files }, async (directory) => {
      using opened = await openSafetensors(directory);
      digests.push(await opened.digest());
    });
  }
  assert.equal(digests[0], digests[1]);
});

/** Reads a header out of a whole file in memory, as opening does. */
function parseFile(file: Uint8Array): void {
  const length = headerLength(file.subarray(0, 8), file.length, "fuzz.safetensors");
  parseHeader(file.subarray(8, 8 + length), file.length, "fuzz.safetensors");
}

/** @returns whether it was accepted; anything but acceptance or an EngineError fails the test */
function isAccepted(file: Uint8Array): boolean {
  try {
    parseFile(file);
    return true;
  } catch (error) {
    if (error instanceof EngineError) return false;
    throw error;
  }
}

Deno.test("parseHeader() gives nothing but an EngineError for a header with changed bytes", async () => {
  const original = encode(SOUND, 16);
  const fixture = await Deno.readFile(`${FIXTURES}qwen3/model.safetensors`);
  const mutation = fc.record({ at: fc.nat(4000), byte: fc.nat(255), cut: fc.option(fc.nat(4000), { freq: 8 }) });
  fc.assert(
    fc.property(
      fc.constantFrom(original, fixture),
      fc.array(mutation, { minLength: 1, maxLength: 6 }),
      (file, list) => {
        let mutant = file.slice();
        for (const { at, byte, cut } of list) {
          mutant[at % Math.min(mutant.length, 4000)] = byte;
          if (cut !== null) mutant = mutant.slice(0, Math.max(1, mutant.length - cut));
        }
        isAccepted(mutant);
      },
    ),
    { numRuns: 400 },
  );
  assert.ok(isAccepted(original) && isAccepted(fixture));
});

Deno.test("parseHeader() gives nothing but an EngineError for a header of any JSON", () => {
  const entry = fc.record({
    dtype: fc.oneof(fc.constantFrom("F32", "F16", "BF16", "I8"), fc.jsonValue()),
    shape: fc.oneof(fc.array(fc.maxSafeInteger()), fc.jsonValue()),
    "data_offsets": fc.oneof(fc.tuple(fc.maxSafeInteger(), fc.maxSafeInteger()), fc.jsonValue()),
  }, { requiredKeys: [] });
  const header = fc.oneof(fc.dictionary(fc.string(), entry), fc.jsonValue());
  fc.assert(fc.property(header, fc.nat(64), (value, bytes) => void isAccepted(encode(JSON.stringify(value), bytes))));
});
