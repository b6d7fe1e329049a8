/**
 * The first two phases of a split: scores of its KV rows, and their exponentials. Knows one workgroup's threads; where it
 * stands among others is `split_kernel.ts`'s.
 */

import type { Plan } from "./split_plan.ts";
import { loadValuesWgsl } from "./split_values.ts";
import { EMPTY_LSE } from "../kv_pages.ts";
import { component, unroll } from "../../wgsl.ts";

/** Scores of all rows of the split into `weights`, of hidden rows the empty floor; each row's address into `rowAt`. */
export function scoresWgsl(plan: Plan): string {
  const { lanes } = plan;
  return /* wgsl */ `
  let team = thread / ${lanes}u;
  let lane = thread % ${lanes}u;
${plan.readsAtOnce ? atOnceWgsl(plan) : turnsWgsl(plan)}
  workgroupBarrier();
`;
}

/** Sums of the rows that a team has in flight. */
function sumsWgsl({ rowsInFlight, columns }: Plan): string {
  return unroll(rowsInFlight, (u) => unroll(columns, (c) => `var s${u}_${c} = 0.0;`));
}

/** Adds the products of one piece of each row in flight. */
function addPieceWgsl({ rowsInFlight, columns, pieces }: Plan, k: (u: number) => string): string {
  return /* wgsl */ `
      ${unroll(rowsInFlight, (u) => `let a${u} = low(${k(u)}); let b${u} = high(${k(u)});`)}
${
    unroll(columns, (c) => /* wgsl */ `
      let qa${c} = query[${c * pieces * 2}u + 2u * piece]; let qb${c} = query[${c * pieces * 2}u + 2u * piece + 1u];
      ${unroll(rowsInFlight, (u) => `s${u}_${c} += dot(a${u}, qa${c}) + dot(b${u}, qb${c});`)}`)
  }`;
}

/** A single turn, whose rows were found before: all of K, and all of V, is on its way before the first product. */
function atOnceWgsl(plan: Plan): string {
  const { threads, lanes, rowsInFlight, pieces, splitRows } = plan;
  const teams = threads / lanes;
  const ownPieces = pieces / lanes;
  return /* wgsl */ `
  let turn = start;
  ${
    unroll(rowsInFlight, (u) => /* wgsl */ `
    let slot${u} = min(${u * teams}u + team, ${splitRows - 1}u);
    let inside${u} = ${u * teams}u + team < ${splitRows}u;
    let picked${u} = picked[slot${u}];
    let at${u} = rowAt[slot${u}] + lane;`)
  }
  ${unroll(ownPieces, (p) => unroll(rowsInFlight, (u) => `let k${u}_${p} = k[at${u} + ${p * lanes}u];`))}
${loadValuesWgsl(plan)}
  ${sumsWgsl(plan)}
  ${
    unroll(ownPieces, (p) =>
      `{
      let piece = lane + ${p * lanes}u;
${addPieceWgsl(plan, (u) => `k${u}_${p}`)}
    }`)
  }
${keepOrMeet(plan)}`;
}

function keepOrMeet(plan: Plan): string {
  return plan.lanes === 1 ? unroll(plan.rowsInFlight, (u) => keepScores(plan, u)) : meetWgsl(plan);
}

/** Turns over rows that are found on the way. */
function turnsWgsl(plan: Plan): string {
  const { threads, lanes, turnRows, pieces, rowsInFlight } = plan;
  const teams = threads / lanes;
  return /* wgsl */ `
  for (var turn = start; turn < end; turn += ${turnRows}u) {
    ${unroll(rowsInFlight, (u) => findRow(plan, u, u * teams))}
    ${sumsWgsl(plan)}
    for (var piece = lane; piece < ${pieces}u; piece += ${lanes}u) {
      ${unroll(rowsInFlight, (u) => `let k${u} = k[at${u} + piece];`)}
${addPieceWgsl(plan, (u) => `k${u}`)}
    }
${keepOrMeet(plan)}
  }`;
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
  const kept = unroll(plan.columns, (c) => /* wgsl */ `
    let seen${u}_${c} = inside${u} && ${seen(plan, c, `picked${u}`)};
    weights[${
    (c * plan.splitRows) / 4
  }u + (${slot}) / 4u][(${slot}) % 4u] = select(${EMPTY_LSE}f, s${u}_${c}, seen${u}_${c});
    ${plan.scores ? `if (seen${u}_${c}) { ${writeScore(plan, c, `picked${u}`, `s${u}_${c}`)} }` : ""}`);
  return plan.threads > plan.turnRows ? `    if (team < ${plan.turnRows}u) { ${kept} }` : kept;
}

/** With several lanes a row, their parts meet in workgroup memory, some columns at a time. */
function meetWgsl(plan: Plan): string {
  const { columns, columnsMeeting, threads, lanes, turnRows, rowsInFlight } = plan;
  const teams = threads / lanes;
  return unroll(Math.ceil(columns / columnsMeeting), (round) => {
    const first = round * columnsMeeting;
    const count = Math.min(columnsMeeting, columns - first);
    const part = (u: number, i: number) => `meeting[${i * turnRows + u * teams}u + team][lane] = s${u}_${first + i};`;
    return /* wgsl */ `
    ${unroll(rowsInFlight, (u) => unroll(count, (i) => part(u, i)))}
    workgroupBarrier();
    for (var i = thread; i < ${turnRows}u; i += ${threads}u) {
      let index = turn + i;
      let local = ${localOf(plan)};
      let slot = index - start;
      ${unroll(count, (i) => addLanes(plan, first + i, i * turnRows))}
    }
    workgroupBarrier();`;
  });
}

/** The KV row of `index`. */
function localOf({ gathered, readsAtOnce }: Plan): string {
  if (readsAtOnce) return "picked[i]";
  return gathered ? "selection[selectionAt + min(index, end - 1u)]" : "index";
}

/** The score of one column from the parts of its lanes. */
function addLanes(plan: Plan, c: number, meetingAt: number): string {
  const sum = Array.from({ length: plan.lanes }, (_, lane) => `four${c}.${component(lane)}`).join(" + ");
  return /* wgsl */ `
      let four${c} = meeting[${meetingAt}u + i];
      let seen${c} = index < end && ${seen(plan, c, "local")};
      weights[${(c * plan.splitRows) / 4}u + slot / 4u][slot % 4u] = select(${EMPTY_LSE}f, ${sum}, seen${c});
      ${plan.scores ? `if (seen${c}) { ${writeScore(plan, c, "local", sum)} }` : ""}`;
}

/** Scores are written by calls with one row a workgroup: a column is a head. */
function writeScore({ heads }: Plan, column: number, local: string, value: string): string {
  return `scores[((params.callRow + row0) * ${heads}u + firstHead + ${column}u) * params.scoreStride + ${local}] = ${value};`;
}

/** `weights` from scores to exponentials; `segments` from maxima to sums. Turns that were not scored count as hidden. */
export function softmaxWgsl({ columns, threads, turnRows, segments }: Plan): string {
  return /* wgsl */ `
  let scored = (end - start + ${turnRows - 1}u) / ${turnRows}u * ${turnRows}u;
  for (var i = thread; i < ${columns * segments}u; i += ${threads}u) {
    let hidden = i % ${segments}u * 8u >= scored;
    let eight = max(weights[2u * i], weights[2u * i + 1u]);
    segments[i / 4u][i % 4u] = select(max(max(eight.x, eight.y), max(eight.z, eight.w)), ${EMPTY_LSE}f, hidden);
  }
  workgroupBarrier();
  if (thread < ${columns}u) { maxima[thread] = segmentsMax(thread); }
  workgroupBarrier();
  for (var i = thread; i < ${columns * segments}u; i += ${threads}u) {
    let top = maxima[i / ${segments}u];
    var eight = vec4<f32>();
    if (i % ${segments}u * 8u < scored) {
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
