/**
 * The WGSL that brings slices of queries, keys and values into the workgroup memory of the tile for GPUs. A thread asks for
 * its part of a slice while the one before is multiplied. Knows where slices come from and where they lie; multiplies nothing.
 */

import { BLOCK_ROWS, LANES, type Plan, stateOf } from "./hardware_tile_plan.ts";
import { unroll } from "../../wgsl.ts";

/** Statements of a thread; slices are numbered by WGSL expressions. */
export interface Slices {
  /** Declares its vectors, and asks for those of a slice. */
  readonly ask: (slice: string) => string;
  /** Asks for those of another slice. */
  readonly askAgain: (slice: string) => string;
  /** Puts what came into workgroup memory. */
  readonly put: string;
}

/** Loads that the threads share out, in turns. */
interface Loads {
  /** Prefix of a thread's variables. */
  readonly name: string;
  readonly count: number;
  readonly load: (index: string, slice: string, turn: number) => string;
  readonly put: (index: string, value: string) => string;
}

function slicesOf({ threads }: Plan, { name, count, load, put }: Loads): Slices {
  const each = Math.ceil(count / threads);
  const isWhole = (i: number) => (i + 1) * threads <= count;
  const index = (i: number) => `(thread + ${i * threads}u)`;
  const from = (i: number) => isWhole(i) ? index(i) : `min(${index(i)}, ${count - 1}u)`;
  return {
    ask: (slice) => unroll(each, (i) => `var ${name}${i} = ${load(from(i), slice, i)};`),
    askAgain: (slice) => unroll(each, (i) => `${name}${i} = ${load(from(i), slice, i)};`),
    put: unroll(each, (i) => {
      const statements = put(index(i), `${name}${i}`);
      return isWhole(i) ? `{ ${statements} }` : `if (${index(i)} < ${count}u) { ${statements} }`;
    }),
  };
}

/** Declares where the rows start from whose queries a thread brings, which is the same for all blocks: for `querySlices`. */
export function queryRowsWgsl(plan: Plan): string {
  const { tileRows, sliceVecs, threads, vecs } = plan;
  const row = (turn: number) => `(thread + ${turn * threads}u) / ${sliceVecs}u`;
  return unroll(
    tileRows * sliceVecs / threads,
    (turn) => `let queryRow${turn} = ${stateOf(row(turn), plan)} * ${vecs}u;`,
  );
}

/** Slices along a head: beyond its end lie zeros, which change no sum. */
export function querySlices(plan: Plan): Slices {
  const { tileRows, ownRows, sliceVecs, vecs } = plan;
  return slicesOf(plan, {
    name: "query",
    count: tileRows * sliceVecs,
    load: (index, slice, turn) => {
      const vec = `${slice} * ${sliceVecs}u + ${index} % ${sliceVecs}u`;
      return orZeros("f32", vec, { count: vecs, slice: sliceVecs, load: (vec) => `q[queryRow${turn} + ${vec}]` });
    },
    put: (index, value) => /* wgsl */ `
      let row = ${index} / ${sliceVecs}u;
      queries[row / ${ownRows}u].rows[row % ${ownRows}u][${index} % ${sliceVecs}u] = ${value};`,
  });
}

/** The same of a block's keys. */
export function keySlices(plan: Plan): Slices {
  const pieces = plan.headDim / 8;
  const slicePieces = plan.sliceVecs / 2;
  return slicesOf(plan, {
    name: "key",
    count: BLOCK_ROWS * slicePieces,
    load: (index, slice) => {
      const first = `address + ${index} / ${slicePieces}u * ${pieces}u`;
      const piece = `${slice} * ${slicePieces}u + ${index} % ${slicePieces}u`;
      return orZeros("u32", piece, { count: pieces, slice: slicePieces, load: (piece) => `k[${first} + ${piece}]` });
    },
    put: (index, value) => /* wgsl */ `
      let row = ${index} / ${slicePieces}u;
      let vec = 2u * (${index} % ${slicePieces}u);
      keys[row / 4u].keys[row % 4u][vec] = low(${value});
      keys[row / 4u].keys[row % 4u][vec + 1u] = high(${value});`,
  });
}

/** Slices of a few whole rows. */
export function valueSlices(plan: Plan): Slices {
  const pieces = plan.headDim / 8;
  const count = plan.valueKeys * pieces;
  return slicesOf(plan, {
    name: "value",
    count,
    load: (index, slice) => `v[address + ${slice} * ${count}u + ${index}]`,
    put: (index, value) => /* wgsl */ `
      let row = ${index} / ${pieces}u;
      let vec = 2u * (${index} % ${pieces}u);
      values[row][vec / ${LANES}u][vec % ${LANES}u] = low(${value});
      values[row][(vec + 1u) / ${LANES}u][(vec + 1u) % ${LANES}u] = high(${value});`,
  });
}

/** A load of one of `count` elements, zeros beyond them; compares only where the last slice goes beyond them. */
function orZeros(
  type: "f32" | "u32",
  element: string,
  { count, slice, load }: {
    readonly count: number;
    readonly slice: number;
    readonly load: (element: string) => string;
  },
): string {
  if (count % slice === 0) return load(element);
  return `select(vec4<${type}>(), ${load(`min(${element}, ${count - 1}u)`)}, ${element} < ${count}u)`;
}
