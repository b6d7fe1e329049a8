/**
 * The outputs of the matrix tile on their way through workgroup memory, column by column of fragments: where single elements can be
 * touched, to be rescaled or stored. The tile declares what is read here; see `matrix_tile.ts`.
 */

import { EMPTY_LSE } from "../kv_pages.ts";
import { storeStateWgsl } from "./matrix_rows.ts";
import { massWgsl, totalWgsl } from "./matrix_softmax.ts";
import { Fragments } from "../../matrix_wgsl.ts";
import type { Plan } from "./matrix_tile_plan.ts";
import { storeFour } from "../../rows.ts";
import { unroll } from "../../wgsl.ts";

/** A column of output fragments in `scores`, one for each of the parts that there is room for. */
function outputPlace({ shape, scores, keyParts }: Plan, i: number): { array: string; at: string; stride: string } {
  return {
    array: "scores",
    at: `(ownRow + ${i * shape.m}u) * ${scores}u + ownPart % ${keyParts}u * ${shape.n / 4}u`,
    stride: `${scores}u`,
  };
}

/** Statements of the subgroups whose parts take turn `turn` in `scores`. */
function inTurn({ rowParts, keyParts }: Plan, turn: number, statements: string): string {
  return rowParts === 1 ? statements : `if (ownPart / ${keyParts}u == ${turn}u) { ${statements} }`;
}

/** WGSL: multiplies the outputs of each row by its factor, and sets the factors back to 1. */
export function rescaleWgsl(plan: Plan): string {
  const { shape, fragments, tileRows, keyParts, rowParts, threads, scores } = plan;
  const write = new Fragments(shape);
  const fours = keyParts * shape.n / 4;
  const store = (j: number) => unroll(fragments.rows, (i) => write.storeSums(outputPlace(plan, i), `out${i}_${j}`));
  const load = (j: number) => unroll(fragments.rows, (i) => `out${i}_${j} = ${write.loadSums(outputPlace(plan, i))};`);
  return `${
    unroll(fragments.outputs, (j) =>
      unroll(rowParts, (turn) => `
      ${inTurn(plan, turn, store(j))}
      workgroupBarrier();
      for (var i = thread; i < ${tileRows * fours}u; i += ${threads}u) {
        scores[(i / ${fours}u) * ${scores}u + i % ${fours}u] *= factors[i / ${fours}u];
      }
      workgroupBarrier();
      ${inTurn(plan, turn, load(j))}
      workgroupBarrier();`))
  }
      factors[row] = 1.0;
      if (thread == 0u) { rescale = 0u; }`;
}

/** WGSL: divides the outputs of each row by its mass, and stores them and its log-sum-exp. */
export function storeWgsl(plan: Plan): string {
  const { fragments, threadsARow, ownKeys, tokens, group, rowParts } = plan;
  return /* wgsl */ `
  meeting[thread] = ${massWgsl(ownKeys)};
  workgroupBarrier();
  let total = ${totalWgsl(threadsARow)};
  factors[row] = select(0.0, 1.0 / max(total, 1e-30), total > 0.0);
  if (thread % ${threadsARow}u == 0u && row < ${tokens * group}u && firstToken + row / ${group}u <= lastToken) {
    let lse = select(${EMPTY_LSE}f, ${Math.LN2} * (top + log2(max(total, 1e-30))), total > 0.0);
    ${
    storeStateWgsl(plan, {
      token: "token",
      head: `row % ${group}u`,
      store: ({ array }, at) => `${array}Lse[${at}] = lse;`,
    })
  }
  }
${unroll(fragments.outputs, (j) => unroll(rowParts, (turn) => storeColumnWgsl(plan, j, turn)))}`;
}

/** Stores column `j` of the output fragments of the parts whose turn it is. */
function storeColumnWgsl(plan: Plan, j: number, turn: number): string {
  const { shape, fragments, tileRows, threads, tokens, group, headDim, split, keyParts, scores } = plan;
  const fours = keyParts * shape.n / 4;
  const part = `(${turn * keyParts}u + four / ${shape.n / 4}u)`;
  const store = unroll(fragments.rows, (i) => new Fragments(shape).storeSums(outputPlace(plan, i), `out${i}_${j}`));
  return `
  workgroupBarrier();
  ${inTurn(plan, turn, store)}
  workgroupBarrier();
  for (var i = thread; i < ${tileRows * fours}u; i += ${threads}u) {
    let outRow = i / ${fours}u;
    let four = i % ${fours}u;
    let outToken = firstToken + outRow / ${group}u;
    if (outRow < ${tokens * group}u && outToken <= lastToken) {
      let dimension = ${part} * ${headDim / split / 4}u + ${j * shape.n / 4}u + four % ${shape.n / 4}u;
      let value = scores[outRow * ${scores}u + four] * factors[outRow];
      ${
    storeStateWgsl(plan, {
      token: "outToken",
      head: `outRow % ${group}u`,
      store: ({ array, form }, at) =>
        storeFour(form, `${array}O`, {
          value: "value",
          at: `(${at}) * ${headDim / 4}u + dimension`,
        }),
    })
  }
    }
  }`;
}
