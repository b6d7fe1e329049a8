/** Corrections by hand: what they restore, that they restore it to the bit, and what is counted while they do. */

import assert from "node:assert/strict";
import { agreementByPosition, agreementOf } from "../../../engine/evaluation/agreement.ts";
import {
  type DecodedText,
  decodeText,
  decodeVariants,
  type DecodingVariant,
  DENSE,
  rowsReadPerToken,
} from "../../../engine/evaluation/corrections.ts";
import { engineFixture, withSession } from "../../support/engine_fixture.ts";
import { FIXTURES } from "../../support/model_directory.ts";
import { Random } from "../../support/random.ts";

const fixture = engineFixture({ directory: `${FIXTURES}/llama-rope3` }, 2048);
Deno.test.beforeAll(() => fixture.engine.calibrate({ selectLayers: [1], budget: 16, sparseFrom: 0 }));

const random = new Random(4);

/** 37 rows after 150 tokens: two full pages that variants share, and 22 positions that each prefills itself. */
const TEXT = { tokens: Uint32Array.from({ length: 188 }, () => 8 + random.integer(500)), context: 150 };
const ROWS = TEXT.tokens.length - TEXT.context - 1;

function sparse(budget: number, correctEvery?: number): DecodingVariant {
  return { sparse: { budget, heads: "kv_head" }, correctEvery };
}

/** What a variant predicted, without its clocks. */
function predictions({ logprob, argmax }: DecodedText): object {
  return { logprob, argmax };
}

Deno.test("decodeVariants() gives dense predictions, bit for bit, for a correction every row and for budgets that hold all", async () => {
  const variants = [DENSE, sparse(16, 1), sparse(1000), sparse(1000, 5)];
  const [dense, ...equal] = await decodeVariants(fixture.host, TEXT, { variants });
  assert.ok(dense);
  assert.equal(dense.logprob.length, ROWS);
  for (const decoded of equal) assert.deepEqual(predictions(decoded), predictions(dense));
  assert.deepEqual(equal.map(({ corrected }) => corrected.filter(Boolean).length), [37, 0, 7]);
});

Deno.test("decodeVariants() finds sparse rows to differ from dense ones, and less so with corrections", async () => {
  const variants = [DENSE, sparse(16), sparse(16, 16), sparse(16, 4)];
  const done: number[] = [];
  const [dense, ...decoded] = await decodeVariants(fixture.host, TEXT, { variants, onDecoded: (n) => done.push(n) });
  assert.ok(dense);
  assert.deepEqual(done, [1, 2, 3, 4]);
  const errors = decoded.map((each) => agreementOf([{ decoded: each, dense }]).logprobError);
  const [off = 0, seldom = 0, often = 0] = errors;
  assert.ok(off > seldom && seldom > often && often > 0.01, errors.join(", "));
});

Deno.test("decodeVariants() predicts sparsely between corrections, and densely with them", async () => {
  const [dense, every5] = await decodeVariants(fixture.host, TEXT, { variants: [DENSE, sparse(16, 5)] });
  const equal = Array.from({ length: ROWS }, (_, i) => i).filter((i) => every5?.logprob[i] === dense?.logprob[i]);
  assert.deepEqual(equal, [4, 9, 14, 19, 24, 29, 34]);
  assert.deepEqual(equal, [...every5?.corrected.entries() ?? []].flatMap(([i, corrected]) => (corrected ? i : [])));
});

Deno.test("decodeVariants() leaves no page taken", async () => {
  await decodeVariants(fixture.host, TEXT, { variants: [DENSE, sparse(16, 5)] });
  const pages = fixture.host.takePages(0, 0, fixture.engine.info.kvPages);
  fixture.host.returnPages(pages);
});

/** Keys and values of the first `rows` positions in every layer. */
async function kvOf(sequence: number, rows: number): Promise<Float32Array[]> {
  const found: Float32Array[] = [];
  for (let layer = 0; layer < fixture.engine.config.layers; layer++) {
    const { positions, k, v } = await fixture.engine.readKvRows(sequence, layer);
    const width = k.length / positions.length;
    found.push(k.subarray(0, rows * width), v.subarray(0, rows * width));
  }
  return found;
}

/** Keys and values after a text was decoded. */
async function kvAfter(text: typeof TEXT, variant: DecodingVariant): Promise<Float32Array[]> {
  return await withSession(fixture.host, variant.sparse ? { sparse: variant.sparse } : {}, async (session) => {
    await decodeText(session, text, variant);
    return await kvOf(session.sequence, text.tokens.length - 1);
  });
}

for (const stride of [1, 2, 5, 16, 17, 33]) {
  Deno.test(`a correction every ${stride} rows leaves the keys and values of dense rows in all layers, bit for bit`, async () => {
    const rows = Math.floor(ROWS / stride) * stride;
    const text = { ...TEXT, tokens: TEXT.tokens.subarray(0, TEXT.context + rows + 1) };
    const dense = await kvAfter(text, DENSE);
    // Corrections belong to the same family of products as dense rows: no tolerance.
    assert.deepEqual(await kvAfter(text, sparse(16, stride)), dense);
    if (stride === 1) return;
    const uncorrected = await kvAfter(text, sparse(16));
    // Layers 0 and 1 are exact anyway, and so are the inputs of layer 2; layer 3 is the first that can deviate.
    assert.deepEqual(uncorrected.slice(0, 6), dense.slice(0, 6));
    assert.notDeepEqual(uncorrected.slice(6), dense.slice(6));
  });
}

Deno.test("a correction differs from prefill of the same tokens by less than f16 rounding makes of it", async () => {
  const corrected = await kvAfter({ ...TEXT, tokens: TEXT.tokens.subarray(0, 183) }, sparse(16, 16));
  const prefilled = await withSession(fixture.host, {}, async (session) => {
    await session.prefill(TEXT.tokens.subarray(0, 182), "none");
    return await kvOf(session.sequence, 182);
  });
  for (const [i, rows] of prefilled.entries()) {
    const norm = Math.hypot(...rows);
    const difference = Math.hypot(...rows.map((value, j) => value - (corrected[i]?.[j] ?? NaN)));
    // Two ways of adding up f32 products, each rounded to f16 in the cache: 2^-11 relative.
    assert.ok(difference / norm < 2 ** -11, `${i}: ${difference / norm}`);
  }
});

Deno.test("rowsReadPerToken() counts the budget in sparse layers, and every row of a correction in full", () => {
  const info = { layers: 4, roles: ["dense", "select", "sparse", "sparse"] } as const;
  const text = { tokens: new Uint32Array(105), context: 100 };
  // Rows at positions 100 … 103 see 101 … 104.
  assert.equal(rowsReadPerToken(info, text, DENSE), 4 * 102.5);
  assert.equal(rowsReadPerToken(info, text, sparse(16)), 2 * 102.5 + 2 * 16);
  assert.equal(rowsReadPerToken(info, text, sparse(1000)), 4 * 102.5);
  assert.equal(rowsReadPerToken(info, text, sparse(16, 1)), 4 * 102.5);
  const [rows, corrections] = [2 * (101 + 103) + 4 * 16, 4 * (101 + 102 + 103 + 104)];
  assert.equal(rowsReadPerToken(info, text, sparse(16, 2)), (rows + corrections) / 4);
});

Deno.test("agreementOf() and agreementByPosition() pool the rows of all texts", () => {
  const decoded = (logprob: number[], argmax: number[], corrected: boolean[]): DecodedText => ({
    logprob: Float64Array.from(logprob),
    argmax: Uint32Array.from(argmax),
    stepMs: new Float64Array(logprob.length),
    corrected,
  });
  const dense = decoded([-1, -2, -3], [7, 8, 9], [false, false, false]);
  const sparse = decoded([-3, -2, -2], [7, 1, 2], [true, false, false]);
  const texts = [{ decoded: dense, dense }, { decoded: sparse, dense }];
  const all = { perplexity: Math.exp(13 / 6), agreement: 4 / 6, rowAgreement: 3 / 5, logprobError: 3 / 6 };
  assert.deepEqual(agreementOf(texts), all);
  assert.equal(agreementOf([{ decoded: { ...sparse, corrected: [true, true, true] }, dense }]).rowAgreement, null);
  assert.deepEqual(agreementByPosition(texts, 2), [
    { from: 0, to: 1, perplexity: Math.exp(2), agreement: 1, rowAgreement: 1, logprobError: 1 },
    { from: 1, to: 3, perplexity: Math.exp(9 / 4), agreement: 0.5, rowAgreement: 0.5, logprobError: 0.25 },
  ]);
  assert.deepEqual(agreementByPosition(texts, 9).map(({ from, to }) => [from, to]), [[0, 1], [1, 2], [2, 3]]);
});
