/**
 * What corrections of sparse decoding are worth: a known text is decoded token by token after a context, as the service
 * would decode it, and every row's prediction is compared with that of full attention at the same position. Knows spans
 * and clocks; knows nothing of files or tables.
 *
 * Full attention means rows decoded densely, one by one. Corrections belong to the same family of products, so what they
 * rewrite has the bits of those rows, and every difference that is found comes from sparse attention.
 */

import { at } from "../../kernels/at.ts";
import { EngineError } from "../errors.ts";
import type { EngineInfo } from "../engine_info.ts";
import { type LayerRole, rowsRead } from "../layer_plan.ts";
import type { Session, SessionHost } from "./hand_session.ts";
import type { SparseSettings } from "../span.ts";
import type { Window } from "./perplexity.ts";

/** How the rows after the context are decoded. */
export interface DecodingVariant {
  /** Undefined: every row attends densely. */
  readonly sparse: SparseSettings | undefined;
  /**
   * Every so many rows, one is a correction: a dense span that takes the newest token along and rewrites the rows since
   * the last one. Undefined: never.
   */
  readonly correctEvery: number | undefined;
}

/** Full attention. */
export const DENSE: DecodingVariant = { sparse: undefined, correctEvery: undefined };

/** A text as one variant decoded it; entry i belongs to the row at position context + i. */
export interface DecodedText {
  /** Natural, of the token that follows in the text. */
  readonly logprob: Float64Array;
  /** The token that greedy decoding would emit. */
  readonly argmax: Uint32Array;
  /** Wall clock of the step that gave the prediction. */
  readonly stepMs: Float64Array;
  /** Whether that step was a correction: the prediction is a dense one. */
  readonly corrected: readonly boolean[];
}

/** The rows of one step: [from, end). The last one's prediction counts; a correction rewrites those before it. */
interface Stretch {
  readonly from: number;
  readonly end: number;
  readonly corrects: boolean;
}

function stretchesOf({ tokens, context }: Window, correctEvery: number | undefined): Stretch[] {
  return Array.from({ length: tokens.length - context - 1 }, (_, i) => {
    const end = context + i + 1;
    const corrects = correctEvery !== undefined && (i + 1) % correctEvery === 0;
    return { from: corrects ? end - correctEvery : end - 1, end, corrects };
  });
}

/**
 * Decodes a text after its context; what the session does not hold of the context yet is prefilled.
 * @param session opened with the variant's budget; it ends with all rows but that of the last token
 */
export async function decodeText(session: Session, text: Window, variant: DecodingVariant): Promise<DecodedText> {
  await prefillContext(session, text);
  const stretches = stretchesOf(text, variant.correctEvery);
  const decoded = {
    logprob: new Float64Array(stretches.length),
    argmax: new Uint32Array(stretches.length),
    stepMs: new Float64Array(stretches.length),
    corrected: stretches.map(({ corrects }) => corrects),
  };
  for (const [i, stretch] of stretches.entries()) {
    const start = performance.now();
    const { logprob, argmax } = await decodeStretch(session, text, { ...stretch, variant });
    decoded.stepMs[i] = performance.now() - start;
    decoded.logprob[i] = logprob;
    decoded.argmax[i] = argmax;
  }
  return decoded;
}

async function prefillContext(session: Session, { tokens, context }: Window): Promise<void> {
  if (session.length < context) await session.prefill(tokens.subarray(session.length, context), "none");
}

/** Runs one step, and returns what its last row predicts: the rows before it were predicted when they were decoded. */
async function decodeStretch(
  session: Session,
  { tokens }: Window,
  { from, end, corrects, variant }: Stretch & { readonly variant: DecodingVariant },
): Promise<{ logprob: number; argmax: number }> {
  const next = at(tokens, end);
  if (!corrects) {
    return await session.scoreNext(at(tokens, from), next, variant.sparse === undefined ? "dense" : "sparse");
  }
  const rows = tokens.subarray(from, end);
  const span = { kind: "decode", attention: "dense", from, tokens: rows, logits: "all", next } as const;
  const { scores } = await session.run(span);
  const [logprob, argmax] = [scores?.logprob.at(-1), scores?.argmax.at(-1)];
  if (logprob === undefined || argmax === undefined) {
    throw new EngineError("invalid_step", `Cannot correct rows ${from} to ${end}: the step gave no scores`);
  }
  return { logprob, argmax };
}

/**
 * Decodes one text under every variant. Its context is prefilled once and its full pages are shared, what lies after
 * them is prefilled again; steps of every kind run once before any is timed.
 * @param onDecoded called after each variant
 */
export async function decodeVariants(
  host: SessionHost,
  text: Window,
  { variants, onDecoded = () => {} }: {
    readonly variants: readonly DecodingVariant[];
    readonly onDecoded?: (done: number) => void;
  },
): Promise<DecodedText[]> {
  const shared = host.open();
  const alone = async <T>(variant: DecodingVariant, body: (session: Session) => Promise<T>): Promise<T> => {
    const session = host.share(shared, text.context, variant.sparse && { sparse: variant.sparse });
    try {
      return await body(session);
    } finally {
      await session.close();
    }
  };
  try {
    await prefillContext(shared, text);
    for (const variant of variants) await alone(variant, (session) => warmUp(session, text, variant));
    const decoded: DecodedText[] = [];
    for (const variant of variants) {
      decoded.push(await alone(variant, (session) => decodeText(session, text, variant)));
      onDecoded(decoded.length);
    }
    return decoded;
  } finally {
    await shared.close();
  }
}

/** The first row and the first correction, without the rows between them: their times are those of compiling. */
async function warmUp(session: Session, text: Window, variant: DecodingVariant): Promise<void> {
  await prefillContext(session, text);
  const stretches = stretchesOf(text, variant.correctEvery);
  for (const corrects of [false, true]) {
    const stretch = stretches.find((each) => each.corrects === corrects);
    if (stretch !== undefined) await decodeStretch(session, text, { ...stretch, variant });
  }
}

/**
 * KV rows that one KV head reads over all layers while a text is decoded, per token. Every row of a correction counts in
 * full, though a kernel may read for several rows at once.
 */
export function rowsReadPerToken(
  { layers, roles }: Pick<EngineInfo, "layers" | "roles">,
  text: Window,
  { sparse, correctEvery }: DecodingVariant,
): number {
  const dense: readonly LayerRole[] = Array.from({ length: layers }, () => "dense");
  const stretches = stretchesOf(text, correctEvery);
  let read = 0;
  for (const { from, end, corrects } of stretches) {
    const planned = sparse === undefined || corrects ? dense : roles ?? dense;
    for (let position = from; position < end; position++) read += rowsRead(planned, sparse?.budget ?? 0, position);
  }
  return read / stretches.length;
}
