/** What the metadata of a GGUF file becomes: a configuration, and a tokenizer. */

import assert from "node:assert/strict";

import { readModelConfig } from "../../../engine/model/model_config.ts";
import { openTensors } from "../../../engine/model/checkpoint.ts";
import { ChatTemplate } from "../../../engine/text/chat_template.ts";
import { Tokenizer } from "../../../engine/text/tokenizer.ts";
import { FIXTURES, readFixture, TIDE, withFiles } from "../../support/model_directory.ts";
import { encodeGguf, type GgufParts, type GgufValue, listOf } from "../../support/gguf_file.ts";

const [STRING, U32, F32, BOOL, I32] = [8, 4, 6, 7, 5] as const;

const text = (value: string): GgufValue => ({ type: STRING, value });
const integer = (value: number): GgufValue => ({ type: U32, value });
const real = (value: number): GgufValue => ({ type: F32, value });
const NO: GgufValue = { type: BOOL, value: 0 };

const SHAPE: Readonly<Record<string, GgufValue>> = {
  "general.architecture": text("llama"),
  "llama.block_count": integer(2),
  "llama.context_length": integer(2048),
  "llama.embedding_length": integer(64),
  "llama.feed_forward_length": integer(96),
  "llama.attention.head_count": integer(4),
  "llama.attention.head_count_kv": integer(2),
  "llama.attention.layer_norm_rms_epsilon": real(2 ** -16),
  "llama.rope.freq_base": real(5000),
};

/** Writes a file whose tensors are an embedding and what is given, and runs `body` on it. */
async function withGguf(
  metadata: Readonly<Record<string, GgufValue | undefined>>,
  body: (path: string) => Promise<void>,
  tensors: GgufParts["tensors"] = [],
): Promise<void> {
  const file = encodeGguf({
    metadata: Object.entries(metadata).flatMap(([key, value]) => value === undefined ? [] : [[key, value] as const]),
    tensors: [{ name: "token_embd.weight", shape: [6, 64], type: 1, offset: 0 }, ...tensors],
    dataBytes: 6 * 64 * 2 + 1024,
  });
  await withFiles({ "m.gguf": file }, (directory) => body(`${directory}/m.gguf`));
}

Deno.test("readModelConfig() takes a GGUF file's keys", async () => {
  await withGguf(
    { ...SHAPE, "tokenizer.ggml.eos_token_id": integer(5), "tokenizer.ggml.eot_token_id": integer(3) },
    async (path) => {
      assert.deepEqual(await readModelConfig(path), {
        architecture: "llama",
        layers: 2,
        hidden: 64,
        ffn: 96,
        heads: 4,
        kvHeads: 2,
        headDim: 16,
        vocabSize: 6,
        maxPositions: 2048,
        rmsNormEps: 2 ** -16,
        ropeTheta: 5000,
        ropeScaling: { kind: "none" },
        tiedEmbeddings: true,
        attentionBias: false,
        qkNorm: undefined,
        blockNorms: "before",
        activation: "silu",
        fusedProjections: false,
        slidingWindow: undefined,
        localLayers: undefined,
        attentionScale: 0.25,
        embeddingScale: 1,
        normOffset: 0,
        eosTokens: [3, 5],
        bosToken: undefined,
      });
    },
  );
});

Deno.test("readModelConfig() takes rotary scalings and divisors of a GGUF file", async () => {
  const linear = { "llama.rope.scaling.type": text("linear"), "llama.rope.scaling.factor": real(4) };
  await withGguf({ ...SHAPE, ...linear }, async (path) => {
    assert.deepEqual((await readModelConfig(path)).ropeScaling, { kind: "linear", factor: 4 });
  });
  const divisors = { name: "rope_freqs.weight", shape: [8], type: 0, offset: 768 };
  await withGguf(SHAPE, async (path) => {
    await assert.rejects(readModelConfig(path), { message: /rope_freqs\.weight must have positive numbers, found 0$/ });
  }, [divisors]);
  const { ropeScaling } = await readModelConfig(`${FIXTURES}gguf/tiny-llama-rope3-Q8_0.gguf`);
  assert.equal(ropeScaling.kind, "divisors");
});

for (
  const [key, value, code, message] of [
    [
      "general.architecture",
      text("gemma2"),
      "unsupported_model",
      /general\.architecture must be one of llama, .*, given "gemma2": soft-capped scores and logits are not computed;/,
    ],
    [
      "llama.block_count",
      integer(5000),
      "invalid_model",
      /llama\.block_count must be an integer from 1 to 1024, given 5000$/,
    ],
    [
      "llama.block_count",
      undefined,
      "invalid_model",
      /llama\.block_count must be an integer from 1 to 1024, given nothing$/,
    ],
    [
      "llama.attention.head_count_kv",
      listOf(I32, [2, 2]),
      "invalid_model",
      /head_count_kv must be an integer from 1 to 4, given \[2,2\]$/,
    ],
    ["llama.expert_count", integer(8), "unsupported_model", /llama\.expert_count must be 0 or absent, given 8$/],
    [
      "llama.rope.dimension_count",
      integer(8),
      "unsupported_model",
      /llama\.rope\.dimension_count must be 16, as for keys, given 8$/,
    ],
    [
      "llama.rope.scaling.type",
      text("longrope"),
      "unsupported_model",
      /rope\.scaling\.type must be none, linear or yarn, given "longrope"$/,
    ],
  ] as const
) {
  Deno.test(`readModelConfig() refuses ${key} = ${JSON.stringify(value?.value ?? value?.values)} of a GGUF file`, async () => {
    await withGguf({ ...SHAPE, [key]: value }, async (path) => {
      await assert.rejects(readModelConfig(path), { name: "EngineError", code, message });
    });
  });
}

Deno.test("openTensors() refuses a GGUF tensor that belongs to nothing", async () => {
  for (const name of ["blk.0.ffn_gate_exps.weight", "blk.0.attn_output.bias", "v.patch_embd.weight"]) {
    await withGguf(SHAPE, async (path) => {
      await assert.rejects(openTensors(path), {
        code: "unsupported_model",
        message: new RegExp(`tensor "${name}" belongs to nothing`),
      });
    }, [{ name, shape: [8], type: 0, offset: 768 }]);
  }
});

Deno.test("A GGUF tokenizer of byte pairs gives the recorded ids and the chat template", async () => {
  const tide = JSON.parse(await Deno.readTextFile(`${TIDE}/tokenizer.json`));
  const entries = new Map<number, string>(Object.entries<number>(tide.model.vocab).map(([token, id]) => [id, token]));
  const special = new Map<number, string>(
    tide.added_tokens.map(({ id, content }: { id: number; content: string }) => [id, content]),
  );
  const size = 1 + Math.max(...entries.keys(), ...special.keys());
  const tokens = Array.from({ length: size }, (_, id) => special.get(id) ?? entries.get(id) ?? `<gap ${id}>`);
  const metadata = {
    ...SHAPE,
    "tokenizer.ggml.model": text("gpt2"),
    "tokenizer.ggml.pre": text("qwen2"),
    "tokenizer.ggml.tokens": listOf(STRING, tokens),
    "tokenizer.ggml.token_type": listOf(I32, tokens.map((_, id) => special.has(id) ? 3 : 1)),
    "tokenizer.ggml.merges": listOf(
      STRING,
      tide.model.merges.map((pair: string | string[]) => [pair].flat().join(" ")),
    ),
    "tokenizer.ggml.bos_token_id": integer(0),
    "tokenizer.chat_template": text("{{ bos_token }}{{ messages[0].content }}"),
  };
  await withGguf(metadata, async (path) => {
    const tokenizer = await Tokenizer.load(path);
    for (const { text, ids } of await readFixture<{ text: string; ids: number[] }[]>("tide-10m/tokenizer.json")) {
      assert.deepEqual([...tokenizer.encode(text)], ids, text);
      assert.equal(tokenizer.decode(ids), text);
    }
    const template = await ChatTemplate.load(path);
    const rendered = template?.render([{ role: "user", content: "hi" }], { addGenerationPrompt: true });
    assert.equal(rendered, `${tokens[0]}hi`);
  });
  await withGguf({ ...metadata, "tokenizer.ggml.pre": text("unheard-of") }, async (path) => {
    await assert.rejects(Tokenizer.load(path), {
      code: "unsupported_model",
      message: /tokenizer\.ggml\.pre must be one of .*qwen2.*, given "unheard-of"$/,
    });
  });
});

/** `<unk>`, `<s>`, `</s>`, 256 bytes, then pieces with scores: the higher, the earlier they are made. */
const PIECES = ["▁", "l", "o", "w", "e", "r", "ow", "lo", "low", "▁low", "er", "▁lower"];
const BYTES = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
const SENTENCE_PIECES = {
  ...SHAPE,
  "tokenizer.ggml.model": text("llama"),
  "tokenizer.ggml.tokens": listOf(STRING, ["<unk>", "<s>", "</s>", ...BYTES, ...PIECES]),
  "tokenizer.ggml.scores": listOf(F32, [0, 0, 0, ...BYTES.map(() => 0), ...PIECES.map((_, i) => -i)]),
  "tokenizer.ggml.token_type": listOf(I32, [2, 3, 3, ...BYTES.map(() => 6), ...PIECES.map(() => 1)]),
  "tokenizer.ggml.bos_token_id": integer(1),
};

Deno.test("A GGUF tokenizer of sentence pieces joins by score, falls back to bytes and begins with its first token", async () => {
  const id = (piece: string) => 259 + PIECES.indexOf(piece);
  await withGguf(SENTENCE_PIECES, async (path) => {
    const tokenizer = await Tokenizer.load(path);
    // "ow" is made before "lo", so "low" cannot be: no pair of pieces gives it but l + ow.
    assert.deepEqual([...tokenizer.encode("lower")], [id("▁lower")].flat());
    assert.deepEqual([...tokenizer.encode("low é")], [id("▁low"), id("▁"), 3 + 0xc3, 3 + 0xa9]);
    assert.deepEqual([...tokenizer.encode("low", { addSpecialTokens: true })], [1, id("▁low")]);
    assert.equal(tokenizer.decode(tokenizer.encode("low é lower")), "low é lower");
    assert.deepEqual([...tokenizer.encode("</s>low")].slice(0, 1), [2]);
  });
  await withGguf({
    ...SENTENCE_PIECES,
    "tokenizer.ggml.add_space_prefix": NO,
    "tokenizer.ggml.add_bos_token": NO,
  }, async (path) => {
    const tokenizer = await Tokenizer.load(path);
    assert.deepEqual([...tokenizer.encode("low", { addSpecialTokens: true })], [id("low")]);
  });
  await withGguf({ ...SENTENCE_PIECES, "tokenizer.ggml.scores": listOf(F32, [1, 2]) }, async (path) => {
    await assert.rejects(Tokenizer.load(path), {
      message: /tokenizer\.ggml\.scores must be a list of 271 scores, one for each token, given \[1,2\]$/,
    });
  });
});
