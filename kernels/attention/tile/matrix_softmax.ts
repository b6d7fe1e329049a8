/**
 * The softmax of the matrix tile: from a block's scores to its weights, in workgroup memory, some threads to a row. The
 * tile declares what it reads and writes; see `matrix_tile.ts` for the maximum that a row keeps.
 */

import { EMPTY_LSE } from "../kv_pages.ts";
import { HALVES_AN_ELEMENT } from "../../matrix_wgsl.ts";
import { unroll } from "../../wgsl.ts";

/** Sizes of the tile. Strides are in elements of 16 bytes. */
export interface SoftmaxPlan {
  readonly blockRows: number;
  /** Threads that share a row, and the keys of each: a multiple of 8. */
  readonly threadsARow: number;
  readonly ownKeys: number;
  /** Strides of a row of scores and of weights. */
  readonly scores: number;
  readonly weights: number;
  /** Statements that keep four scores of a row, before they become weights: WGSL of them, and of the first one's KV row. */
  readonly keepFour: (four: string, at: string, options: { readonly masked: boolean }) => string;
}

/** Keys whose weights a row adds up apart from the others: as many as a thread has at least. */
const MASS_KEYS = 8;

/** WGSL: declares a thread's masses, one for each eight of its keys: so that they do not depend on how many threads share a row. */
export function massesWgsl(ownKeys: number): string {
  return unroll(ownKeys / MASS_KEYS, (i) => `var mass${i} = 0.0;`);
}

/** WGSL: the sum of a thread's masses, in the order of `totalWgsl`. */
export function massWgsl(ownKeys: number): string {
  return inPairs(Array.from({ length: ownKeys / MASS_KEYS }, (_, i) => `mass${i}`));
}

/** WGSL: the sum over the threads of a row of what they left in `meeting`. */
export function totalWgsl(threadsARow: number): string {
  return inPairs(Array.from({ length: threadsARow }, (_, i) => `meeting[row * ${threadsARow}u + ${i}u]`));
}

/** A power of two of terms, added up like a tree: any part of them that is one may be added up before. */
function inPairs(terms: readonly string[]): string {
  const half = terms.length / 2;
  return terms.length === 1 ? `${terms[0]}` : `(${inPairs(terms.slice(0, half))} + ${inPairs(terms.slice(half))})`;
}

/** A row's maximum may be exceeded by a factor of 2 to this power before its outputs are rescaled; f16 weights reach 2^15. */
const HEADROOM = 8;

/** Only blocks at the ends of what the rows see need a mask. */
export function softmaxWgsl(plan: SoftmaxPlan): string {
  return `if (start >= last.z && start + ${plan.blockRows}u <= first.w) {
      ${weighWgsl(plan, { masked: false })}
    } else {
      ${weighWgsl(plan, { masked: true })}
    }`;
}

function weighWgsl(
  { threadsARow, ownKeys, scores, weights, keepFour }: SoftmaxPlan,
  { masked }: { readonly masked: boolean },
): string {
  const fours = ownKeys / 4;
  const mask = (i: number) =>
    `{
        let at = vec4<u32>(start + firstKey + ${4 * i}u) + vec4<u32>(0u, 1u, 2u, 3u);
        let seen = (at >= vec4<u32>(visible.x)) & (at < vec4<u32>(visible.y));
        s${i} = select(vec4<f32>(${EMPTY_LSE}f), s${i}, seen);
      }`;
  const packed = (i: number) => `pack2x16float(s${i}.xy), pack2x16float(s${i}.zw)`;
  return `${unroll(fours, (i) => `var s${i} = scores[row * ${scores}u + firstKey / 4u + ${i}u];`)}
      ${masked ? unroll(fours, mask) : ""}
      ${unroll(fours, (i) => keepFour(`s${i}`, `start + firstKey + ${4 * i}u`, { masked }))}
      var highest = largest(s0);
      ${unroll(fours - 1, (i) => `highest = max(highest, largest(s${i + 1}));`)}
      meeting[thread] = highest;
      workgroupBarrier();
      ${unroll(threadsARow, (i) => `highest = max(highest, meeting[row * ${threadsARow}u + ${i}u]);`)}
      if (highest > top + ${HEADROOM}.0) {
        if (${massWgsl(ownKeys)} > 0.0) {
          let factor = exp2(top - highest);
          factors[row] = factor;
          ${unroll(fours / 2, (i) => `mass${i} *= factor;`)}
          rescale = 1u;
        }
        top = highest;
      }
      // A row that has seen nothing yet keeps weights of 0.
      let floor = max(top, ${EMPTY_LSE / 10}f);
      ${unroll(fours, (i) => `s${i} = exp2(s${i} - floor);`)}
      ${unroll(fours / 2, (i) => `mass${i} += sumOf(s${2 * i} + s${2 * i + 1});`)}
      ${
    unroll(fours / 2, (i) =>
      `weights[row * ${weights}u + firstKey / ${HALVES_AN_ELEMENT}u + ${i}u] = vec4<u32>(${packed(2 * i)}, ${
        packed(2 * i + 1)
      });`)
  }`;
}
