/**
 * The three phases of a split: scores of its KV rows, their exponentials, the weighted sum of the V rows.
 * Knows one workgroup's threads; where it stands among others is `attention_split.ts`'s.
 */

import { HEADS_ADDED_AT_ONCE, type Plan, SEGMENTS, SPLIT_ROWS } from "./attention_split_plan.ts";
import { EMPTY_LSE } from "./kv_pages.ts";
import { component, unroll } from "../wgsl.ts";

/** Scores of all rows of the split into `weights`, of hidden rows the empty floor; each row's address into `rowAt`. */
export function scoresWgsl(plan: Plan): string {
  const { headsTogether: G, threads, lanes, turnRows, pieces, gathered } = plan;
  const teams = threads / lanes;
  const each = turnRows / teams;
  const heads = G;
  const sums = unroll(each, (u) => unroll(heads, (g) => `var s${u}_${g} = 0.0;`));
  const rowOf = (u: number) => /* wgsl */ `
    let index${u} = min(turn + ${u * teams}u + team, end - 1u);
    let picked${u} = ${gathered ? `selection[selectionAt + index${u}]` : `index${u}`};
    let local${u} = min(picked${u}, entry.kvLimit - 1u);
    let at${u} = kvAddress(entry.sequenceSlot, local${u}, kvHead);
    let seen${u} = turn + ${u * teams}u + team < end && picked${u} >= entry.kvFrom && picked${u} < entry.kvLimit;
    if (lane == 0u) { rowAt[turn - start + ${u * teams}u + team] = at${u}; }`;
  return /* wgsl */ `
  let team = thread / ${lanes}u;
  let lane = thread % ${lanes}u;
  for (var turn = start; turn < end; turn += ${turnRows}u) {
    ${unroll(each, rowOf)}
    ${sums}
    for (var piece = lane; piece < ${pieces}u; piece += ${lanes}u) {
      ${unroll(each, (u) => `let k${u} = k[at${u} + piece];`)}
      ${unroll(each, (u) => `let a${u} = low(k${u}); let b${u} = high(k${u});`)}
${
    unroll(heads, (g) => /* wgsl */ `
      let qa${g} = query[${g * pieces * 2}u + 2u * piece]; let qb${g} = query[${g * pieces * 2}u + 2u * piece + 1u];
      ${unroll(each, (u) => `s${u}_${g} += dot(a${u}, qa${g}) + dot(b${u}, qb${g});`)}`)
  }
    }
${lanes === 1 ? unroll(each, (u) => keepScore(plan, u)) : meetWgsl(plan)}
  }
  workgroupBarrier();
`;
}

/** With one lane a row, the lane has the whole product. */
function keepScore(plan: Plan, u: number): string {
  const slot = `turn - start + ${u * plan.threads}u + team`;
  return unroll(plan.headsTogether, (g) => /* wgsl */ `
    weights[${(g * SPLIT_ROWS) / 4}u + (${slot}) / 4u][(${slot}) % 4u] = select(${EMPTY_LSE}f, s${u}_${g}, seen${u});
    ${plan.scores ? `if (seen${u}) { ${writeScore(plan, String(g), `local${u}`, `s${u}_${g}`)} }` : ""}`);
}

/** With several lanes a row, their parts meet in workgroup memory; hidden rows carry the floor in the first lane. */
function meetWgsl(plan: Plan): string {
  const { headsTogether: G, threads, lanes, turnRows } = plan;
  const teams = threads / lanes;
  const part = (u: number, g: number) => `meeting[${g * turnRows + u * teams}u + team][lane] = s${u}_${g};`;
  const sum = Array.from({ length: lanes }, (_, lane) => `four.${component(lane)}`).join(" + ");
  return /* wgsl */ `
    ${unroll(turnRows / teams, (u) => unroll(G, (g) => part(u, g)))}
    workgroupBarrier();
    for (var i = thread; i < ${G * turnRows}u; i += ${threads}u) {
      let four = meeting[i];
      let index = turn + i % ${turnRows}u;
      let head = i / ${turnRows}u;
      ${plan.gathered ? `let local = selection[selectionAt + min(index, end - 1u)];` : "let local = index;"}
      let seen = index < end && local >= entry.kvFrom && local < entry.kvLimit;
      let slot = index - start;
      weights[head * ${SPLIT_ROWS / 4}u + slot / 4u][slot % 4u] = select(${EMPTY_LSE}f, ${sum}, seen);
      ${plan.scores ? `if (seen) { ${writeScore(plan, "head", "local", sum)} }` : ""}
    }
    workgroupBarrier();`;
}

function writeScore({ heads }: Plan, head: string, local: string, value: string): string {
  return `scores[((params.callRow + row) * ${heads}u + firstHead + ${head}) * params.scoreStride + ${local}] = ${value};`;
}

/** `weights` from scores to exponentials; `segments` from maxima to sums. Turns that were not scored count as hidden. */
export function softmaxWgsl({ headsTogether: G, threads, turnRows }: Plan): string {
  return /* wgsl */ `
  let scored = (end - start + ${turnRows - 1}u) / ${turnRows}u * ${turnRows}u;
  for (var i = thread; i < ${G * SEGMENTS}u; i += ${threads}u) {
    let hidden = i % ${SEGMENTS}u * 8u >= scored;
    let eight = max(weights[2u * i], weights[2u * i + 1u]);
    segments[i / 4u][i % 4u] = select(max(max(eight.x, eight.y), max(eight.z, eight.w)), ${EMPTY_LSE}f, hidden);
  }
  workgroupBarrier();
  if (thread < ${G}u) { maxima[thread] = segmentsMax(thread); }
${unroll(G, (g) => `  let top${g} = segmentsMax(${g}u);\n`)}
  workgroupBarrier();
${
    unroll(G, (g) => /* wgsl */ `
  for (var i = thread; i < ${SEGMENTS}u; i += ${threads}u) {
    let at = ${(g * SPLIT_ROWS) / 4}u + 2u * i;
    var eight = vec4<f32>();
    if (i * 8u < scored) {
      let a = weights[at];
      let b = weights[at + 1u];
      let ea = select(exp(a - top${g}), vec4<f32>(), a <= vec4<f32>(${EMPTY_LSE}f));
      let eb = select(exp(b - top${g}), vec4<f32>(), b <= vec4<f32>(${EMPTY_LSE}f));
      weights[at] = ea;
      weights[at + 1u] = eb;
      eight = ea + eb;
    }
    segments[(${g * SEGMENTS}u + i) / 4u][i % 4u] = eight.x + eight.y + (eight.z + eight.w);
  }`)
  }
  workgroupBarrier();
`;
}

/** The weighted sum of V rows: teams take every n-th quad of rows, then their sums are added in order. */
export function valuesWgsl(plan: Plan): string {
  const { headsTogether: G, pieces, valueTeams } = plan;
  const quad = 4;
  const add = (g: number) =>
    unroll(quad, (r) => {
      const weight = `w${g}.${component(r)}`;
      return `oa${g} += ${weight} * a${r}; ob${g} += ${weight} * b${r};`;
    });
  return /* wgsl */ `
  let valueTeam = thread / ${pieces}u;
  let piece = thread % ${pieces}u;
  ${unroll(G, (g) => `var oa${g} = vec4<f32>(); var ob${g} = vec4<f32>();`)}
  if (valueTeam < ${valueTeams}u) {
    let quads = (end - start + 3u) / 4u;
    for (var i = valueTeam; i < quads; i += ${valueTeams}u) {
      ${unroll(quad, (r) => `let v${r} = v[rowAt[4u * i + ${r}u] + piece];`)}
      ${unroll(quad, (r) => `let a${r} = low(v${r}); let b${r} = high(v${r});`)}
      ${unroll(G, (g) => `let w${g} = weights[${(g * SPLIT_ROWS) / 4}u + i];`)}
      ${unroll(G, add)}
    }
  }
${unroll(Math.ceil(G / HEADS_ADDED_AT_ONCE), (turn) => addTeamsWgsl(plan, turn * HEADS_ADDED_AT_ONCE))}
`;
}

/** Adds up the heads from `first` on, as many as are added at once. */
function addTeamsWgsl(plan: Plan, first: number): string {
  const { heads, headsTogether, pieces, valueTeams, threads } = plan;
  const count = Math.min(HEADS_ADDED_AT_ONCE, headsTogether - first);
  const perHead = valueTeams * pieces * 2;
  const put = unroll(count, (i) => {
    const at = `${i * perHead}u + 2u * thread`;
    return `meeting[${at}] = oa${first + i}; meeting[${at} + 1u] = ob${first + i};`;
  });
  return /* wgsl */ `
  if (valueTeam < ${valueTeams}u) { ${put} }
  workgroupBarrier();
  for (var i = thread; i < ${count * pieces * 2}u; i += ${threads}u) {
    let slot = i / ${pieces * 2}u;
    let head = ${first}u + slot;
    let source = slot * ${perHead}u + i % ${pieces * 2}u;
    var sum = meeting[source];
    ${unroll(valueTeams - 1, (t) => `sum += meeting[source + ${(t + 1) * pieces * 2}u];`)}
    let mass = segmentsSum(head);
    let o = select(vec4<f32>(), sum / max(mass, 1e-30), mass > 0.0);
    let lse = select(${EMPTY_LSE}f, maxima[head] + log(max(mass, 1e-30)), mass > 0.0);
    var to = (params.firstRow + row) * ${heads}u + firstHead + head;
    let vec = i % ${pieces * 2}u;
    // A row's only split is its state: it needs no merge.
    if (range.live == 1u) {
      outO[to * ${pieces * 2}u + vec] = o;
      if (vec == 0u) { outLse[to] = lse; }
    } else {
      to = (group.x * params.rows + row) * ${heads}u + firstHead + head;
      partsO[to * ${pieces * 2}u + vec] = o;
      if (vec == 0u) { partsLse[to] = lse; }
    }
  }
  workgroupBarrier();
`;
}
