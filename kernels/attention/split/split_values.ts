/**
 * The last phase of a split: the weighted sum of its V rows, and where the result goes. Knows one workgroup's threads;
 * where it stands among others is `split_kernel.ts`'s.
 */

import { COLUMNS_ADDED_AT_ONCE, type Plan } from "./split_plan.ts";
import { EMPTY_LSE } from "../kv_pages.ts";
import { storeFour } from "../../rows.ts";
import { component, unroll } from "../../wgsl.ts";

/**
 * The weighted sum of V rows: teams take every n-th quad of rows, then their sums are added in order. Rows that a column
 * does not see, but its neighbours do, weigh 0: they change nothing as long as V is finite.
 */
export function valuesWgsl(plan: Plan): string {
  const { columns } = plan;
  return /* wgsl */ `
${plan.readsAtOnce ? "" : valueTeamWgsl(plan)}
  ${unroll(columns, (c) => `var oa${c} = vec4<f32>(); var ob${c} = vec4<f32>();`)}
${plan.readsAtOnce ? loadedQuadsWgsl(plan) : quadsWgsl(plan)}
${unroll(Math.ceil(columns / COLUMNS_ADDED_AT_ONCE), (turn) => addTeamsWgsl(plan, turn * COLUMNS_ADDED_AT_ONCE))}
`;
}

function valueTeamWgsl({ pieces }: Plan): string {
  return `  let valueTeam = thread / ${pieces}u;
  let piece = thread % ${pieces}u;`;
}

/** Rows of a quad. */
const QUAD = 4;

/** Adds a quad of rows, times their weights. */
function addQuadWgsl({ columns, splitRows }: Plan, quad: string, v: (row: number) => string): string {
  const add = (c: number) =>
    unroll(QUAD, (r) => {
      const weight = `w${c}.${component(r)}`;
      return `oa${c} += ${weight} * a${r}; ob${c} += ${weight} * b${r};`;
    });
  return /* wgsl */ `
      ${unroll(QUAD, (r) => `let a${r} = low(${v(r)}); let b${r} = high(${v(r)});`)}
      ${unroll(columns, (c) => `let w${c} = weights[${(c * splitRows) / QUAD}u + ${quad}];`)}
      ${unroll(columns, add)}`;
}

function quadsWgsl(plan: Plan): string {
  const { valueTeams } = plan;
  return /* wgsl */ `
  if (valueTeam < ${valueTeams}u) {
    let quads = (end - start + 3u) / 4u;
    for (var i = valueTeam; i < quads; i += ${valueTeams}u) {
      ${unroll(QUAD, (r) => `let v${r} = v[rowAt[4u * i + ${r}u] + piece];`)}
${addQuadWgsl(plan, "i", (r) => `v${r}`)}
    }
  }`;
}

/** Quads that each team has of a split. */
function ownQuads({ splitRows, valueTeams }: Plan): number {
  return Math.ceil(splitRows / QUAD / valueTeams);
}

/** Loads all that a thread adds up later; teams that are too many repeat the last quad, for nothing. */
export function loadValuesWgsl(plan: Plan): string {
  const { valueTeams, splitRows } = plan;
  return /* wgsl */ `
${valueTeamWgsl(plan)}
  ${
    unroll(ownQuads(plan), (i) => /* wgsl */ `
    let quad${i} = min(valueTeam + ${i * valueTeams}u, ${splitRows / QUAD - 1}u);
    ${unroll(QUAD, (r) => `let v${i}_${r} = v[rowAt[4u * quad${i} + ${r}u] + piece];`)}`)
  }`;
}

function loadedQuadsWgsl(plan: Plan): string {
  const { valueTeams, splitRows } = plan;
  return unroll(ownQuads(plan), (i) => /* wgsl */ `
  if (valueTeam < ${Math.min(valueTeams, splitRows / QUAD - i * valueTeams)}u) {
${addQuadWgsl(plan, `quad${i}`, (r) => `v${i}_${r}`)}
  }`);
}

/** Adds up the columns from `first` on, as many as are added at once. */
function addTeamsWgsl(plan: Plan, first: number): string {
  const { columns, pieces, valueTeams, threads } = plan;
  const count = Math.min(COLUMNS_ADDED_AT_ONCE, columns - first);
  const perColumn = valueTeams * pieces * 2;
  const put = unroll(count, (i) => {
    const at = `${i * perColumn}u + 2u * thread`;
    return `meeting[${at}] = oa${first + i}; meeting[${at} + 1u] = ob${first + i};`;
  });
  return /* wgsl */ `
  if (valueTeam < ${valueTeams}u) { ${put} }
  workgroupBarrier();
  for (var i = thread; i < ${count * pieces * 2}u; i += ${threads}u) {
    let slot = i / ${pieces * 2}u;
    let column = ${first}u + slot;
    let source = slot * ${perColumn}u + i % ${pieces * 2}u;
    var sum = meeting[source];
    ${unroll(valueTeams - 1, (t) => `sum += meeting[source + ${(t + 1) * pieces * 2}u];`)}
    let mass = masses[column];
    let o = select(vec4<f32>(), sum / max(mass, 1e-30), mass > 0.0);
    let lse = select(${EMPTY_LSE}f, maxima[column] + log(max(mass, 1e-30)), mass > 0.0);
    let vec = i % ${pieces * 2}u;
${writeStateWgsl(plan)}
  }
  workgroupBarrier();
`;
}

/**
 * A row's only split is its state, and needs no merge, where the kernel stores those; others are parts. A split that is none of the
 * row's is nothing.
 */
function writeStateWgsl({ heads, headsTogether: G, rowsTogether, pieces, outForm }: Plan): string {
  const at = `to * ${pieces * 2}u + vec`;
  const own = rowsTogether === 1
    ? "let row = row0; let range = range0; let live = range.live;"
    : `let row = block.first + min(column / ${G}u, block.rows - 1u);
    let range = splitRange(readRow(params.firstRow + row));
    let live = select(0u, range.live, column / ${G}u < block.rows);`;
  const whole = outForm === "parts" ? "" : /* wgsl */ `if (live == 1u && part == 0u) {
      let to = (params.firstRow + row) * ${heads}u + head;
      ${storeFour(outForm, "outO", { value: "o", at })}
      if (vec == 0u) { outLse[to] = lse; }
    } else `;
  return /* wgsl */ `
    ${own}
    let head = firstHead + column % ${G}u;
    let part = split - range.first;
    ${whole}if (part < live) {
      let to = (part * params.rows + row) * ${heads}u + head;
      partsO[${at}] = o;
      if (vec == 0u) { partsLse[to] = lse; }
    }`;
}
