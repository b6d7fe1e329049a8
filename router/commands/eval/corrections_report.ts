/** What corrections are worth, as Markdown and as a picture. Knows tables and lines; measures nothing. */

import type { PositionAgreement } from "../../../engine/evaluation/agreement.ts";
import type { CorrectionFigures, VariantFigures } from "./corrections.ts";
import { linePlot, type LineStyle } from "./line_plot.ts";
import { markdownTable, percent } from "../markdown_table.ts";

const COLUMNS = [
  "attention",
  "correction",
  "perplexity",
  "agrees with dense",
  "rows not corrected agree",
  "log-prob. error",
  "ms/token",
  "row step ms",
  "correction ms",
  "KV rows read/token",
];

/** Lines for people. */
export function reportCorrections(figures: CorrectionFigures): readonly string[] {
  const { date, adapter, selectLayers, context, tokens, texts, variants, seconds } = figures;
  const books = texts.map(({ book }) => book).join(", ");
  return [
    `Adapter ${adapter}; select layers {${selectLayers.join(", ")}}; ${date}; ${seconds} s`,
    `Held-out text of ${books}: ${tokens} known tokens of each, decoded behind a context of ${context}`,
    "",
    ...markdownTable(COLUMNS, variants.map(rowOf)),
    "",
    ...tableByPosition("agrees with dense", variants, ({ agreement }) => percent(agreement, 1)),
    "",
    ...tableByPosition("perplexity", variants, ({ perplexity }) => perplexity.toFixed(2)),
  ];
}

function rowOf(variant: VariantFigures): readonly string[] {
  const ms = (value: number | null) => (value === null ? "–" : value.toFixed(2));
  return [
    attentionOf(variant),
    correctionOf(variant),
    variant.perplexity.toFixed(3),
    percent(variant.agreement, 1),
    variant.rowAgreement === null ? "–" : percent(variant.rowAgreement, 1),
    variant.logprobError.toFixed(4),
    ms(variant.msPerToken),
    ms(variant.rowMs),
    ms(variant.correctionMs),
    variant.rowsReadPerToken.toFixed(0),
  ];
}

function tableByPosition(
  what: string,
  variants: readonly VariantFigures[],
  cell: (figures: PositionAgreement) => string,
): readonly string[] {
  const ranges = (variants[0]?.byPosition ?? []).map(({ from, to }) => `${from}–${to - 1}`);
  const rows = variants.map((variant) => [nameOf(variant), ...variant.byPosition.map(cell)]);
  return markdownTable([`${what}, by token behind the context`, ...ranges], rows);
}

function attentionOf({ budget }: VariantFigures): string {
  return budget === null ? "dense" : `sparse ${budget}`;
}

function correctionOf({ budget, correctEvery }: VariantFigures): string {
  if (budget === null) return "–";
  return correctEvery === null ? "off" : `every ${correctEvery}`;
}

function nameOf(variant: VariantFigures): string {
  return variant.budget === null ? "dense" : `${attentionOf(variant)}, ${correctionOf(variant)}`;
}

/** By stride, the variant without corrections first; used again from the start when there are more strides. */
const COLOURS = ["#c62828", "#6a1b9a", "#1565c0", "#00897b", "#ef8f00"];

/** By budget. */
const DASHES = ["5 4", undefined, "1 3", "9 3 2 3"];

/**
 * Agreement and perplexity by position, as SVG. Perplexity is drawn against that of full attention: from one part of a
 * book to the next it changes more than from one variant to another.
 */
export function plotCorrections({ variants, context }: CorrectionFigures): string {
  const dense = variants.find(({ budget }) => budget === null)?.byPosition ?? [];
  const middles = (value: (figures: PositionAgreement, index: number) => number) =>
    variants.map(({ byPosition }) =>
      byPosition.map((part, i): [number, number] => [(part.from + part.to) / 2, value(part, i)])
    );
  const xLabel = `tokens decoded behind a context of ${context}`;
  const agreement = { title: "Agreement with dense", xLabel, yLabel: "same most likely token, %" };
  const perplexity = { title: "Perplexity against dense", xLabel, yLabel: "above that of dense, %" };
  return linePlot({
    title: "Sparse decoding with and without corrections: agreement with full attention, and perplexity",
    lines: stylesOf(variants),
    panels: [
      { ...agreement, points: middles((part) => part.agreement * 100) },
      { ...perplexity, points: middles((part, i) => (part.perplexity / (dense[i]?.perplexity ?? NaN) - 1) * 100) },
    ],
  });
}

/** Colour stands for the stride, dashes for the budget. */
function stylesOf(variants: readonly VariantFigures[]): LineStyle[] {
  const strides = [...new Set(variants.flatMap(({ budget, correctEvery }) => (budget === null ? [] : [correctEvery])))];
  const budgets = [...new Set(variants.flatMap(({ budget }) => budget ?? []))];
  return variants.map((variant) => {
    const { budget, correctEvery } = variant;
    const name = nameOf(variant);
    if (budget === null) return { name, colour: "#000000" };
    const dashes = DASHES[budgets.indexOf(budget) % DASHES.length];
    const colour = COLOURS[strides.indexOf(correctEvery) % COLOURS.length] ?? "#000000";
    return { name, colour, ...(dashes && { dashes }) };
  });
}
