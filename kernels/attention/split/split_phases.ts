/**
 * The first two phases of a split: scores of its KV rows, and their exponentials. Knows one workgroup's threads; where it
 * stands among others is `split_kernel.ts`'s.
 */

import { SPLIT_ROWS } from "./split_cut.ts";
import { type Plan, SEGMENTS } from "./split_plan.ts";
import { EMPTY_LSE } from "../kv_pages.ts";
import { component, unroll } from "../../wgsl.ts";

/** Scores of all rows of the split into `weights`, of hidden rows the empty floor; each row's address into `rowAt`. */
export function scoresWgsl(plan: Plan): string {
  const { columns, threads, lanes, turnRows, pieces } = plan;
  const teams = threads / lanes;
  const each = turnRows / teams;
  const sums = unroll(each, (u) => unroll(columns, (c) => `var s${u}_${c} = 0.0;`));
  return /* wgsl */ `
  let team = thread / ${lanes}u;
  let lane = thread % ${lanes}u;
  for (var turn = start; turn < end; turn += ${turnRows}u) {
    ${unroll(each, (u) => findRow(plan, u, u * teams))}
    ${sums}
    for (var piece = lane; piece < ${pieces}u; piece += ${lanes}u) {
      ${unroll(each, (u) => `let k${u} = k[at${u} + piece];`)}
      ${unroll(each, (u) => `let a${u} = low(k${u}); let b${u} = high(k${u});`)}
${
    unroll(columns, (c) => /* wgsl */ `
      let qa${c} = query[${c * pieces * 2}u + 2u * piece]; let qb${c} = query[${c * pieces * 2}u + 2u * piece + 1u];
      ${unroll(each, (u) => `s${u}_${c} += dot(a${u}, qa${c}) + dot(b${u}, qb${c});`)}`)
  }
    }
${lanes === 1 ? unroll(each, (u) => keepScores(plan, u)) : meetWgsl(plan)}
  }
  workgroupBarrier();
`;
}

/** The KV row of a team's turn that lies `ahead` rows after the first team's. */
function findRow({ gathered }: Plan, u: number, ahead: number): string {
  return /* wgsl */ `
    let index${u} = min(turn + ${ahead}u + team, end - 1u);
    let inside${u} = turn + ${ahead}u + team < end;
    let picked${u} = ${gathered ? `selection[selectionAt + index${u}]` : `index${u}`};
    let at${u} = kvAddress(entry0.sequenceSlot, ${
    gathered ? `min(picked${u}, entry0.kvLimit - 1u)` : `picked${u}`
  }, kvHead);
    if (lane == 0u) { rowAt[turn - start + ${ahead}u + team] = at${u}; }`;
}

/** Whether the row of a column sees a KV row. */
function seen({ headsTogether }: Plan, column: number, kvRow: string): string {
  const entry = `entry${Math.floor(column / headsTogether)}`;
  return `${kvRow} >= ${entry}.kvFrom && ${kvRow} < ${entry}.kvLimit`;
}

/** With one lane a row, the lane has the whole product. */
function keepScores(plan: Plan, u: number): string {
  const slot = `turn - start + ${u * plan.threads}u + team`;
  return unroll(plan.columns, (c) => /* wgsl */ `
    let seen${u}_${c} = inside${u} && ${seen(plan, c, `picked${u}`)};
    weights[${
    (c * SPLIT_ROWS) / 4
  }u + (${slot}) / 4u][(${slot}) % 4u] = select(${EMPTY_LSE}f, s${u}_${c}, seen${u}_${c});
    ${plan.scores ? `if (seen${u}_${c}) { ${writeScore(plan, c, `picked${u}`, `s${u}_${c}`)} }` : ""}`);
}

/** With several lanes a row, their parts meet in workgroup memory, some columns at a time. */
function meetWgsl(plan: Plan): string {
  const { columns, columnsMeeting, threads, lanes, turnRows } = plan;
  const teams = threads / lanes;
  return unroll(Math.ceil(columns / columnsMeeting), (round) => {
    const first = round * columnsMeeting;
    const count = Math.min(columnsMeeting, columns - first);
    const part = (u: number, i: number) => `meeting[${i * turnRows + u * teams}u + team][lane] = s${u}_${first + i};`;
    return /* wgsl */ `
    ${unroll(turnRows / teams, (u) => unroll(count, (i) => part(u, i)))}
    workgroupBarrier();
    for (var i = thread; i < ${turnRows}u; i += ${threads}u) {
      let index = turn + i;
      let local = ${plan.gathered ? "selection[selectionAt + min(index, end - 1u)]" : "index"};
      let slot = index - start;
      ${unroll(count, (i) => addLanes(plan, first + i, i * turnRows))}
    }
    workgroupBarrier();`;
  });
}

/** The score of one column from the parts of its lanes. */
function addLanes(plan: Plan, c: number, meetingAt: number): string {
  const sum = Array.from({ length: plan.lanes }, (_, lane) => `four${c}.${component(lane)}`).join(" + ");
  return /* wgsl */ `
      let four${c} = meeting[${meetingAt}u + i];
      let seen${c} = index < end && ${seen(plan, c, "local")};
      weights[${(c * SPLIT_ROWS) / 4}u + slot / 4u][slot % 4u] = select(${EMPTY_LSE}f, ${sum}, seen${c});
      ${plan.scores ? `if (seen${c}) { ${writeScore(plan, c, "local", sum)} }` : ""}`;
}

/** Scores are written by calls with one row a workgroup: a column is a head. */
function writeScore({ heads }: Plan, column: number, local: string, value: string): string {
  return `scores[((params.callRow + row0) * ${heads}u + firstHead + ${column}u) * params.scoreStride + ${local}] = ${value};`;
}

/** `weights` from scores to exponentials; `segments` from maxima to sums. Turns that were not scored count as hidden. */
export function softmaxWgsl({ columns, threads, turnRows }: Plan): string {
  return /* wgsl */ `
  let scored = (end - start + ${turnRows - 1}u) / ${turnRows}u * ${turnRows}u;
  for (var i = thread; i < ${columns * SEGMENTS}u; i += ${threads}u) {
    let hidden = i % ${SEGMENTS}u * 8u >= scored;
    let eight = max(weights[2u * i], weights[2u * i + 1u]);
    segments[i / 4u][i % 4u] = select(max(max(eight.x, eight.y), max(eight.z, eight.w)), ${EMPTY_LSE}f, hidden);
  }
  workgroupBarrier();
  if (thread < ${columns}u) { maxima[thread] = segmentsMax(thread); }
  workgroupBarrier();
  for (var i = thread; i < ${columns * SEGMENTS}u; i += ${threads}u) {
    let top = maxima[i / ${SEGMENTS}u];
    var eight = vec4<f32>();
    if (i % ${SEGMENTS}u * 8u < scored) {
      let a = weights[2u * i];
      let b = weights[2u * i + 1u];
      let ea = select(exp(a - top), vec4<f32>(), a <= vec4<f32>(${EMPTY_LSE}f));
      let eb = select(exp(b - top), vec4<f32>(), b <= vec4<f32>(${EMPTY_LSE}f));
      weights[2u * i] = ea;
      weights[2u * i + 1u] = eb;
      eight = ea + eb;
    }
    segments[i / 4u][i % 4u] = eight.x + eight.y + (eight.z + eight.w);
  }
  workgroupBarrier();
  if (thread < ${columns}u) { masses[thread] = segmentsSum(thread); }
`;
}
