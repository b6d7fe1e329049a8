/**
 * Are corrections worth their cost? Held-out texts decoded densely, sparsely, and sparsely with a correction every so many
 * rows. Knows texts and variants; `engine/evaluation` knows how each is measured.
 */

import type { Engine } from "../../../engine/engine.ts";
import {
  type Agreement,
  agreementByPosition,
  agreementOf,
  type ComparedText,
  type PositionAgreement,
} from "../../../engine/evaluation/agreement.ts";
import {
  type DecodedText,
  decodeVariants,
  type DecodingVariant,
  DENSE,
  rowsReadPerToken,
} from "../../../engine/evaluation/corrections.ts";
import type { EngineInfo } from "../../../engine/engine_info.ts";
import { SessionHost } from "../../../engine/evaluation/hand_session.ts";
import { UsageError } from "../../errors.ts";
import type { Terminal } from "../../terminal.ts";
import { type LongText, readLongTexts } from "./evaluation_data.ts";
import { mean } from "../../../engine/evaluation/mean.ts";

/** What to compare. */
export interface CorrectionOptions {
  /** Directory of the texts. */
  readonly data: string;
  /** Texts, each of another book. */
  readonly texts: number;
  /** Tokens before the decoded ones. */
  readonly context: number;
  /** To decode, of each text. */
  readonly tokens: number;
  readonly budgets: readonly number[];
  /** A correction every so many rows. */
  readonly strides: readonly number[];
}

/** One way of decoding, over one text or several. */
export interface VariantFigures extends Agreement {
  /** Null: dense. */
  readonly budget: number | null;
  /** Null: no corrections. */
  readonly correctEvery: number | null;
  /** Wall clock of all steps, corrections included, divided by the tokens. */
  readonly msPerToken: number;
  /** Median of the steps of one row; null when there is none. */
  readonly rowMs: number | null;
  /** Median of the corrections; null when there is none. */
  readonly correctionMs: number | null;
  /** By one KV head, over all layers, corrections included. */
  readonly rowsReadPerToken: number;
  readonly byPosition: readonly PositionAgreement[];
}

/** All that was measured; `--json` prints it as it is. */
export interface CorrectionFigures {
  readonly date: string;
  readonly adapter: string;
  readonly selectLayers: readonly number[];
  readonly context: number;
  readonly tokens: number;
  /** Over all texts. */
  readonly variants: readonly VariantFigures[];
  readonly texts: readonly { readonly book: string; readonly variants: readonly VariantFigures[] }[];
  readonly seconds: number;
}

/** A text, decoded under every variant; full attention first. */
interface TextRun {
  readonly text: LongText;
  readonly decoded: readonly DecodedText[];
}

/** Parts into which the decoded positions are divided. */
const PARTS = 8;

/**
 * Decodes every text under every variant.
 * @throws {UsageError} when the model has no calibration, or the data no texts that long
 */
export async function evaluateCorrections(
  engine: Engine,
  options: CorrectionOptions,
  terminal: Terminal,
): Promise<CorrectionFigures> {
  const { adapter, roles, selectLayers } = engine.info;
  if (roles === undefined) {
    throw new UsageError("Cannot compare corrections: the model has no calibration (run calibrate)");
  }
  const start = performance.now();
  const texts = await readLongTexts(options.data, { ...options, books: options.texts });
  const variants = variantsOf(options);
  const host = new SessionHost(engine);
  const runs: TextRun[] = [];
  for (const [i, text] of texts.entries()) {
    const onDecoded = (done: number) => terminal.progress("texts", (i + done / variants.length) / texts.length);
    const decoded = await decodeVariants(host, text, { variants, onDecoded });
    runs.push({ text, decoded });
  }
  const figures = (of: readonly TextRun[]) =>
    variants.map((variant, index) => figuresOf(engine.info, variant, { runs: of, index }));
  return {
    date: new Date().toISOString().slice(0, 10),
    adapter,
    selectLayers,
    context: options.context,
    tokens: options.tokens,
    variants: figures(runs),
    texts: runs.map((run) => ({ book: run.text.book, variants: figures([run]) })),
    seconds: Math.round((performance.now() - start) / 1000),
  };
}

/** Dense first; then each budget without corrections, and with those of each stride. */
function variantsOf({ budgets, strides }: CorrectionOptions): DecodingVariant[] {
  const every = [undefined, ...strides];
  return [
    DENSE,
    ...budgets.flatMap((budget) =>
      every.map((correctEvery): DecodingVariant => ({ sparse: { budget, heads: "kv_head" }, correctEvery }))
    ),
  ];
}

function figuresOf(
  info: EngineInfo,
  { sparse, correctEvery }: DecodingVariant,
  { runs, index }: { readonly runs: readonly TextRun[]; readonly index: number },
): VariantFigures {
  const compared = runs.flatMap(({ decoded: { [0]: dense, [index]: decoded } }): ComparedText[] =>
    dense === undefined || decoded === undefined ? [] : [{ dense, decoded }]
  );
  const steps = compared.flatMap(({ decoded: { stepMs, corrected } }) =>
    [...stepMs].map((ms, i) => ({ ms, isCorrection: corrected[i] }))
  );
  return {
    budget: sparse?.budget ?? null,
    correctEvery: correctEvery ?? null,
    ...agreementOf(compared),
    msPerToken: mean(steps.map(({ ms }) => ms)),
    rowMs: median(steps.flatMap(({ ms, isCorrection }) => (isCorrection ? [] : ms))),
    correctionMs: median(steps.flatMap(({ ms, isCorrection }) => (isCorrection ? ms : []))),
    rowsReadPerToken: mean(runs.map(({ text }) => rowsReadPerToken(info, text, { sparse, correctEvery }))),
    byPosition: agreementByPosition(compared, PARTS),
  };
}

function median(values: readonly number[]): number | null {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? null;
}
