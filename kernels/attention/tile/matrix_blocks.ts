/**
 * How a block of K and V rows reaches the subgroups of the matrix tile: through workgroup memory, where several of them use
 * it, or straight from the pages as fragments, where each has its own part. Both bring the next block while one is computed,
 * and the same operands, so that they give the same bits.
 */

import { Fragments, HALVES_AN_ELEMENT } from "../../matrix_wgsl.ts";
import { unroll } from "../../wgsl.ts";
import type { Plan } from "./matrix_tile_plan.ts";

/** The pieces of a loop over blocks. */
export interface BlocksWgsl {
  /** In front of the function. */
  readonly memory: string;
  /** Variables of a thread. */
  readonly variables: string;
  /** Fetches what lies at `address`, for the next round. */
  readonly fetch: string;
  /** Begins a round: makes ready what was fetched, and starts to bring the rest, which lies at `address`. */
  readonly begin: string;
  /** Ends a round. */
  readonly end: string;
  /** Declares the fragment of keys `j` at depth `d` of a head as `key`, and that of values as `value`. */
  readonly key: (j: number, d: number) => string;
  readonly value: (j: number, d: number) => string;
}

/** Those of a plan. */
export function blocksWgsl(plan: Plan): BlocksWgsl {
  return plan.staged ? stagedWgsl(plan) : directWgsl(plan);
}

/** A block lies in one page, its rows back to back: each thread brings some of its elements. */
function stagedWgsl({ shape, loads, threads, elements, keys, blockRows, split, headDim }: Plan): BlocksWgsl {
  const write = new Fragments(shape);
  const stride = `${keys}u`;
  const memory = (name: string) => `var<workgroup> ${name}: array<vec4<u32>, ${blockRows * keys}>;`;
  const key = (j: number, d: number) =>
    `(ownPart * ${blockRows / split}u + ${j * shape.n}u) * ${keys}u + ${d * shape.k / HALVES_AN_ELEMENT}u`;
  const value = (j: number, d: number) =>
    `${d * shape.k * keys}u + (ownPart * ${headDim / split}u + ${j * shape.n}u) / ${HALVES_AN_ELEMENT}u`;
  return {
    memory: `${memory("keys")}\n${memory("values")}`,
    variables: unroll(loads, (i) => `var k${i}: vec4<u32>; var v${i}: vec4<u32>;`),
    fetch: unroll(
      loads,
      (i) => `k${i} = k[address + thread + ${i * threads}u]; v${i} = v[address + thread + ${i * threads}u];`,
    ),
    begin: `${
      unroll(loads, (i) =>
        `{
      let element = thread + ${i * threads}u;
      let to = (element / ${elements}u) * ${keys}u + element % ${elements}u;
      keys[to] = k${i};
      values[to] = v${i};
    }`)
    }
    workgroupBarrier();`,
    end: "workgroupBarrier();",
    key: (j, d) => `let key = ${write.right({ array: "keys", at: key(j, d), stride }, "columns")};`,
    value: (j, d) => `let value = ${write.right({ array: "values", at: value(j, d), stride }, "rows")};`,
  };
}

/** A subgroup loads its fragments itself: no barrier, and no memory that would bound how many workgroups are resident. */
function directWgsl({ shape, fragments, elements, blockRows, split, headDim }: Plan): BlocksWgsl {
  const write = new Fragments(shape);
  const stride = `${elements}u`;
  const eachKey = (piece: (j: number, d: number) => string) =>
    unroll(fragments.keys, (j) => unroll(fragments.headDepth, (d) => piece(j, d)));
  const key = (j: number, d: number) =>
    write.right({
      array: "k",
      at: `address + (ownPart * ${blockRows / split}u + ${j * shape.n}u) * ${elements}u + ${
        d * shape.k / HALVES_AN_ELEMENT
      }u`,
      stride,
    }, "columns");
  const value = (j: number, d: number) =>
    write.right({
      array: "v",
      at: `address + ${d * shape.k * elements}u + (ownPart * ${headDim / split}u + ${
        j * shape.n
      }u) / ${HALVES_AN_ELEMENT}u`,
      stride,
    }, "rows");
  return {
    memory: "",
    variables: eachKey((j, d) => `var key${j}_${d}: ${write.rightType};`),
    fetch: eachKey((j, d) => `key${j}_${d} = ${key(j, d)};`),
    begin: unroll(
      fragments.outputs,
      (j) => unroll(fragments.blockDepth, (d) => `let value${j}_${d} = ${value(j, d)};`),
    ),
    end: "",
    key: (j, d) => `let key = key${j}_${d};`,
    value: (j, d) => `let value = value${j}_${d};`,
  };
}
