/**
 * What the select of `top_k.ts` does besides for adaptive rows: a goal of its own, and an end that depends on the masses.
 * Knows the names of that kernel; a row that is not adaptive passes by.
 */

import { NO_POSITION } from "./row_table.ts";

/** What an adaptive row wants of the rows that it sees; when it sees none here, there is nothing to choose. */
export function goalWgsl(threads: number): string {
  return /* wgsl */ `
  if (entry.coverage > 0u) {
    let cap = min(k, entry.kvLimit - min(entry.kvLimit, entry.kvFrom));
    goal = vec3<u32>(cap, min(cap, params.floor), entry.coverage);
    if (cap == 0u) {
      for (var i = thread; i < k; i += ${threads}u) { positions[to + i] = ${NO_POSITION}u; }
      return;
    }
  }
  let all = goal.x;
`;
}

/** How many of those equal to the threshold are needed, all of one mass; the places that stay empty; the tally. */
export function cutWgsl(threads: number): string {
  return /* wgsl */ `
  if (entry.coverage > 0u) {
    // Nothing hidden is kept: the threshold is the key of a value that is not negative.
    let each = massOf(bitcast<f32>(threshold & 0x7fffffffu));
    var heavy = 0u;
    if (goal.z > 0u) { heavy = select((goal.z - 1u) / max(each, 1u) + 1u, goal.x, each == 0u); }
    wanted = min(goal.x, max(goal.y, heavy));
    let kept = all - goal.x + wanted;
    for (var i = kept + thread; i < k; i += ${threads}u) { positions[to + i] = ${NO_POSITION}u; }
    if (thread == 0u) { atomicAdd(&tally[params.tallyAt + group.y], kept * params.weight); }
  }
`;
}
