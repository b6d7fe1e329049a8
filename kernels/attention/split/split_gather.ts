/**
 * Where the rows of a split of a selection lie, and where they end: a set may be padded. Knows one workgroup's set; what is
 * computed from its rows is the business of the phases after.
 */

import type { Plan } from "./split_plan.ts";
import { NO_POSITION } from "../row_table.ts";
import { unroll } from "../../wgsl.ts";

/** WGSL: the memory that `findRowsWgsl` fills beside `rowAt`. */
export function pickedMemoryWgsl({ readsAtOnce, splitRows }: Plan): string {
  return readsAtOnce ? `var<workgroup> picked: array<u32, ${splitRows}>;\n` : "";
}

/**
 * Each thread finds one row: its position into `picked`, `NO_POSITION` where there is none, and its address into `rowAt`, of
 * a visible row in any case. Other variants find their rows on the way.
 */
export function findRowsWgsl({ readsAtOnce, splitRows }: Plan): string {
  return !readsAtOnce ? "" : /* wgsl */ `
  if (thread < ${splitRows}u) {
    let own = selection[selectionAt + min(start + thread, end - 1u)];
    picked[thread] = select(${NO_POSITION}u, own, start + thread < end);
    rowAt[thread] = kvAddress(entry0.sequenceSlot, min(own, entry0.kvLimit - 1u), kvHead);
  }`;
}

/**
 * Declares `end`. Variants that read all rows at once hide padding; others end where it begins, so that a split of padding
 * alone reads nothing: its entries are looked at in two rounds of loads that do not wait for each other.
 */
export function gatheredEndWgsl({ readsAtOnce, splitRows }: Plan): string {
  const full = `min(min(entry0.selected, entry0.kvLimit), start + ${splitRows}u)`;
  if (readsAtOnce) return `  let end = ${full};`;
  const step = Math.sqrt(splitRows);
  const count = (into: string, from: string, stride: number) =>
    unroll(step, (u) => {
      const at = `${from} + ${u * stride}u`;
      const entry = `selection[selectionAt + min(${at}, full - 1u)]`;
      return `    ${into} += select(0u, 1u, ${at} < full && ${entry} != ${NO_POSITION}u);`;
    });
  return /* wgsl */ `
  let full = ${full};
  var blocks = 0u;
${count("blocks", "start", step)}
  var end = start;
  if (blocks > 0u) {
    let block = start + (blocks - 1u) * ${step}u;
    end = block;
${count("end", "block", 1)}
  }`;
}
