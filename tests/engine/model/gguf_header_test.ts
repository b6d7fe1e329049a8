/** GGUF headers that lie, are cut short or never end: nothing but an EngineError that names file, key and bound comes of them. */

import assert from "node:assert/strict";
import fc from "fast-check";

import { EngineError } from "../../../engine/errors.ts";
import { MoreBytesNeeded } from "../../../engine/model/gguf/byte_reader.ts";
import { GgufFiles, ggufPaths } from "../../../engine/model/gguf/gguf_files.ts";
import { parseHeader } from "../../../engine/model/gguf/header.ts";
import { FIXTURES, withFiles } from "../../support/model_directory.ts";
import { encodeGguf, type GgufParts } from "../../support/gguf_file.ts";

const U32 = 4;
const U64 = 10;
const ARRAY = 9;
const STRING = 8;

const SOUND: GgufParts = {
  metadata: [["general.architecture", { type: STRING, value: "llama" }], ["n", { type: U32, value: 7 }]],
  tensors: [{ name: "a", shape: [3, 32], type: 8, offset: 0 }, { name: "b", shape: [5], type: 0, offset: 128 }],
  dataBytes: 148,
};

function parse(parts: GgufParts): ReturnType<typeof parseHeader> {
  const bytes = encodeGguf(parts);
  return parseHeader(bytes, bytes.length, "m.gguf");
}

Deno.test("parseHeader() gives metadata, and tensors with types, shapes and places", () => {
  const { metadata, tensors } = parse(SOUND);
  assert.deepEqual([...metadata], [["general.architecture", "llama"], ["n", 7]]);
  const start = encodeGguf(SOUND).length - 148;
  assert.deepEqual(tensors, [
    { name: "a", dtype: "Q8_0", shape: [3, 32], bytes: 102, position: start },
    { name: "b", dtype: "F32", shape: [5], bytes: 20, position: start + 128 },
  ]);
});

/** What is wrong, and what the message must say. */
const BROKEN: readonly (readonly [what: string, change: Partial<GgufParts>, message: RegExp])[] = [
  [
    "a wrong magic number",
    { magic: 0x12345678 },
    /^Cannot read m\.gguf: expected a GGUF file, found one that begins with/,
  ],
  ["version 1", { version: 1 }, /^Cannot load m\.gguf: the GGUF version must be 2 or 3, given 1$/],
  ["big-endian numbers", { version: 0x03000000 }, /version must be 2 or 3, given a big-endian file$/],
  [
    "a huge number of tensors",
    { tensorCount: 2n ** 63n },
    /the number of tensors must be at most 65536, given 9223372036854776000$/,
  ],
  [
    "more tensors than the file holds",
    { tensorCount: 60_000n },
    /its keys and tensors must fit in the \d+ bytes left of the file, given \d+ bytes$/,
  ],
  [
    "a huge number of keys",
    { keyCount: 2n ** 40n },
    /the number of metadata keys must be at most 65536, given 1099511627776$/,
  ],
  [
    "a string longer than the file",
    { metadata: [["k", { type: STRING, length: 1_000_000n }]] },
    /"k" must fit in the \d+ bytes left of the file, given 1000000 bytes$/,
  ],
  [
    "a string longer than any",
    { metadata: [["k", { type: STRING, length: 2n ** 62n }]] },
    /the length of "k" must be at most 4194304, given 4611686018427388000$/,
  ],
  [
    "a list longer than the file",
    { metadata: [["k", { type: ARRAY, elementType: U64, count: 4_000_000n }]] },
    /the elements of "k" must fit in the \d+ bytes left of the file, given 32000000 bytes$/,
  ],
  [
    "a list longer than any",
    { metadata: [["k", { type: ARRAY, elementType: U64, count: 2n ** 60n }]] },
    /the number of elements of "k" must be at most 4194304, given/,
  ],
  [
    "lists in a list",
    { metadata: [["k", { type: ARRAY, elementType: ARRAY, count: 1n }]] },
    /the elements of "k" must be numbers, booleans or strings, given lists$/,
  ],
  ["an unknown type", { metadata: [["k", { type: 77 }]] }, /the type of "k" must be from 0 to 12, given 77$/],
  [
    "a key twice",
    { metadata: [["k", { type: U32, value: 1 }], ["k", { type: U32, value: 2 }]] },
    /metadata key "k" must occur once, given twice$/,
  ],
  [
    "a wrong alignment",
    { metadata: [["general.alignment", { type: U32, value: 3 }]] },
    /"general\.alignment" must be a multiple of 8 from 8 to 65536, given 3$/,
  ],
  [
    "too many dimensions",
    { tensors: [{ name: "a", shape: [1, 1, 1, 1, 1], type: 0, offset: 0 }] },
    /the dimensions of tensor "a" must be at most 4, given 5$/,
  ],
  [
    "no elements",
    { tensors: [{ name: "a", shape: [0, 4], type: 0, offset: 0 }] },
    /the shape of tensor "a" must have from 1 to 2\^53 elements, given \[0, 4\]$/,
  ],
  [
    "more elements than numbers",
    { tensors: [{ name: "a", shape: [2 ** 40, 2 ** 40], type: 0, offset: 0 }] },
    /must have from 1 to 2\^53 elements/,
  ],
  [
    "a row of half a block",
    { tensors: [{ name: "a", shape: [1, 40], type: 8, offset: 0 }] },
    /rows of tensor "a" must be a multiple of 32 for Q8_0, given 40$/,
  ],
  [
    "a type that is not read",
    { tensors: [{ name: "a", shape: [256], type: 10, offset: 0 }] },
    /the type of tensor "a" must be one of .*Q6_K.*, given Q2_K$/,
  ],
  ["a type that does not exist", { tensors: [{ name: "a", shape: [256], type: 99, offset: 0 }] }, /given type 99$/],
  [
    "an offset between alignments",
    { tensors: [{ name: "a", shape: [4], type: 0, offset: 20 }] },
    /the offset of tensor "a" must be a multiple of 32, given 20$/,
  ],
  [
    "an offset beyond the end",
    { tensors: [{ name: "a", shape: [4], type: 0, offset: 2 ** 40 }] },
    /tensor "a" must end within the file's \d+ bytes, given offset 1099511627776 and 16 bytes$/,
  ],
  ["overlapping tensors", {
    tensors: [{ name: "a", shape: [16], type: 0, offset: 0 }, { name: "b", shape: [16], type: 0, offset: 32 }],
  }, /the offset of tensor "b" must be at least 64, where others end, given 32$/],
  ["a tensor twice", {
    tensors: [{ name: "a", shape: [8], type: 0, offset: 0 }, { name: "a", shape: [8], type: 0, offset: 32 }],
  }, /tensor "a" must occur once, given twice$/],
];

for (const [what, change, message] of BROKEN) {
  Deno.test(`parseHeader() refuses ${what}`, () => {
    assert.throws(() => parse({ ...SOUND, ...change }), (error) => {
      assert.ok(error instanceof EngineError, String(error));
      assert.match(error.message, message);
      return true;
    });
  });
}

Deno.test("parseHeader() asks for more bytes where the file has them, and refuses a file that is cut short", () => {
  const bytes = encodeGguf(SOUND);
  const header = bytes.length - SOUND.dataBytes;
  for (let length = 0; length < header - 32; length++) {
    assert.throws(() => parseHeader(bytes.subarray(0, length), bytes.length, "m.gguf"), MoreBytesNeeded);
    assert.throws(() => parseHeader(bytes.subarray(0, length), length, "m.gguf"), EngineError);
  }
});

Deno.test("parseHeader() makes nothing but an EngineError of changed bytes", async () => {
  const bytes = await Deno.readFile(`${FIXTURES}gguf/tiny-llama-Q4_0.gguf`);
  const header = 11_000;
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(header), fc.nat(255)), { minLength: 1, maxLength: 8 }), (changes) => {
      const changed = bytes.slice();
      for (const [at, value] of changes) changed[at] = value;
      try {
        parseHeader(changed, changed.length, "m.gguf");
      } catch (error) {
        assert.ok(error instanceof EngineError, String(error));
      }
    }),
    { numRuns: 150, seed: 1 },
  );
});

Deno.test("GgufFiles.open() reads a small part of a large file", async () => {
  const bytes = encodeGguf({ ...SOUND, tensors: [{ name: "a", shape: [2 ** 30], type: 0, offset: 0 }], dataBytes: 0 });
  await withFiles({ "big.gguf": bytes }, async (directory) => {
    // Sparse: it takes no space.
    await Deno.truncate(`${directory}/big.gguf`, bytes.length + 2 ** 32);
    using files = await GgufFiles.open(`${directory}/big.gguf`);
    assert.equal(files.tensors.get("a")?.tensor.bytes, 2 ** 32);
  });
});

Deno.test("GgufFiles.open() joins the parts of a split model, whichever is named, and checks that none is missing", async () => {
  const part = (no: number, name: string): Uint8Array =>
    encodeGguf({
      metadata: [["split.no", { type: U32, value: no }], ["split.count", { type: U32, value: 2 }]],
      tensors: [{ name, shape: [8], type: 0, offset: 0 }],
      dataBytes: 32,
    });
  const [first, second] = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];
  assert.deepEqual(ggufPaths(`d/${second}`), [`d/${first}`, `d/${second}`]);
  assert.deepEqual(ggufPaths("d/m.gguf"), ["d/m.gguf"]);
  await withFiles({ [first]: part(0, "a"), [second]: part(1, "b") }, async (directory) => {
    for (const name of [first, second]) {
      using files = await GgufFiles.open(`${directory}/${name}`);
      assert.deepEqual([...files.tensors.keys()], ["a", "b"]);
      assert.equal(files.path, `${directory}/${first}`);
    }
    await Deno.rename(`${directory}/${first}`, `${directory}/alone.gguf`);
    await assert.rejects(GgufFiles.open(`${directory}/${second}`), { message: /00001-of-00002\.gguf: no such file$/ });
    await assert.rejects(GgufFiles.open(`${directory}/alone.gguf`), {
      message: /split\.count must be an integer from 0 to 1, given 2$/,
    });
  });
  await withFiles({ [first]: part(0, "a"), [second]: part(0, "b") }, async (directory) => {
    await assert.rejects(GgufFiles.open(`${directory}/${first}`), {
      message: /split\.no must be an integer from 1 to 1, given 0$/,
    });
  });
  await withFiles({ [first]: part(0, "a"), [second]: part(1, "a") }, async (directory) => {
    await assert.rejects(GgufFiles.open(`${directory}/${first}`), {
      message: /tensor a must be in one file, found in .* too$/,
    });
  });
});
