/**
 * The WGSL of the tile for adapters that compute on the CPU. There a load costs some forty times an addition, whether
 * lanes read one address or many, and registers are cheap: so every lane keeps whole query rows and their outputs, and
 * nothing lies in workgroup memory. Where subgroups exist, each lane loads another piece of a KV row and broadcasts it.
 * Knows one workgroup's work; `prefill_attention.ts` decides how many there are.
 */

import { EMPTY_LSE, HALVES_WGSL, type HeadShape, kvAddressWgsl } from "../kv_pages.ts";
import { ROW_TABLE_WGSL } from "../row_table.ts";
import { unroll } from "../../wgsl.ts";

/** Lanes of a workgroup, which is one subgroup at most. */
export const TILE_LANES = 8;

/** KV rows between two updates of a row's maximum; a block lies within one page. */
const BLOCK_ROWS = 8;

/** What distinguishes variants. */
export interface SoftwareTile extends HeadShape {
  /** Query rows (token, head) of one lane. */
  readonly rowsPerLane: number;
  /** Whether lanes share their loads; needs subgroups of at least 8 lanes. */
  readonly broadcast: boolean;
}

/** Tokens of one tile: as many as have all their heads of a group in it. */
export function softwareTileTokens({ heads, kvHeads, rowsPerLane }: SoftwareTile): number {
  return Math.max(1, Math.floor((TILE_LANES * rowsPerLane * kvHeads) / heads));
}

/** WGSL of the kernel. Bindings: q, k, v, pageTable, rowTable, outO, outLse; parameters: firstRow, rows, maxPages, scale. */
export function softwareTileWgsl(options: SoftwareTile): string {
  const { heads, kvHeads, headDim, rowsPerLane } = options;
  const group = heads / kvHeads;
  const rows = rowsPerLane;
  const vecs = headDim / 4;
  return /* wgsl */ `
${ROW_TABLE_WGSL}${kvAddressWgsl(options, 8)}${HALVES_WGSL}
fn largest(four: vec4<f32>) -> f32 { return max(max(four.x, four.y), max(four.z, four.w)); }

@compute @workgroup_size(${TILE_LANES})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let kvHead = workgroup.y;
  let firstToken = workgroup.x * ${softwareTileTokens(options)}u;
  let lastToken = min(firstToken + ${softwareTileTokens(options)}u, params.rows) - 1u;
  let first = readRow(params.firstRow + firstToken);
  let last = readRow(params.firstRow + lastToken);
${unroll(rows, (r) => loadRow(r, { ...options, group, vecs }))}
  let end = (last.kvLimit + ${BLOCK_ROWS - 1}u) / ${BLOCK_ROWS}u;
  for (var block = first.kvFrom / ${BLOCK_ROWS}u; block < end; block++) {
    let start = block * ${BLOCK_ROWS}u;
    let address = kvAddress(last.sequenceSlot, start, kvHead);
${scoresWgsl(options)}
${unroll(rows, (r) => softmaxWgsl(r, vecs))}
${valuesWgsl(options)}
  }
${unroll(rows, (r) => storeRow(r, { ...options, vecs }))}
}
`;
}

/** A lane's rows beyond the tile repeat its last row and are not stored. */
function loadRow(
  r: number,
  { heads, group, rowsPerLane, vecs, ...tile }: SoftwareTile & { group: number; vecs: number },
): string {
  const tileRows = softwareTileTokens({ heads, rowsPerLane, ...tile }) * group;
  return /* wgsl */ `
  let index${r} = min(lane * ${rowsPerLane}u + ${r}u, ${tileRows - 1}u);
  let token${r} = firstToken + index${r} / ${group}u;
  let stored${r} = lane * ${rowsPerLane}u + ${r}u < ${tileRows}u && token${r} <= lastToken;
  let entry${r} = readRow(params.firstRow + min(token${r}, lastToken));
  let state${r} = (params.firstRow + min(token${r}, lastToken)) * ${heads}u + kvHead * ${group}u + index${r} % ${group}u;
  var top${r} = ${EMPTY_LSE}f;
  var mass${r} = 0.0;
  ${unroll(vecs, (i) => `let q${r}_${i} = params.scale * q[state${r} * ${vecs}u + ${i}u];`)}
  ${unroll(vecs, (i) => `var o${r}_${i} = vec4<f32>();`)}
`;
}

/** Loads of one K or V row, and its pieces as `a` and `b` for `use`. */
function piecesWgsl({ headDim, broadcast }: SoftwareTile, source: "k" | "v", use: (piece: number) => string): string {
  const pieces = headDim / 8;
  if (!broadcast) {
    return unroll(pieces, (piece) => /* wgsl */ `
      { let words = ${source}[row + ${piece}u]; let a = low(words); let b = high(words); ${use(piece)} }`);
  }
  return unroll(Math.ceil(pieces / TILE_LANES), (turn) => {
    const held = Math.min(TILE_LANES, pieces - turn * TILE_LANES);
    const load = /* wgsl */ `
      let words${turn} = ${source}[row + ${turn * TILE_LANES}u + min(lane, ${held - 1}u)];
      let low${turn} = low(words${turn});
      let high${turn} = high(words${turn});`;
    return load + unroll(held, (from) => /* wgsl */ `
      {
        let a = subgroupBroadcast(low${turn}, ${from}u);
        let b = subgroupBroadcast(high${turn}, ${from}u);
        ${use(turn * TILE_LANES + from)}
      }`);
  });
}

/** Products of all rows with the block's K rows; a score finds its place in a vector by a mask, for lack of indexing. */
function scoresWgsl(options: SoftwareTile): string {
  const rows = options.rowsPerLane;
  const use = (piece: number) =>
    unroll(rows, (r) => `s${r} += dot(a, q${r}_${2 * piece}) + dot(b, q${r}_${2 * piece + 1});`);
  return /* wgsl */ `
    ${unroll(rows, (r) => `var x${r} = vec4<f32>(); var y${r} = vec4<f32>();`)}
    for (var j = 0u; j < ${BLOCK_ROWS}u; j++) {
      let row = address + j * ${options.headDim / 8}u;
      ${unroll(rows, (r) => `var s${r} = 0.0;`)}
      ${piecesWgsl(options, "k", use)}
      let inX = vec4<u32>(0u, 1u, 2u, 3u) == vec4<u32>(j);
      let inY = vec4<u32>(4u, 5u, 6u, 7u) == vec4<u32>(j);
      ${
    unroll(rows, (r) => `x${r} = select(x${r}, vec4<f32>(s${r}), inX); y${r} = select(y${r}, vec4<f32>(s${r}), inY);`)
  }
    }
    let placesX = vec4<u32>(start) + vec4<u32>(0u, 1u, 2u, 3u);
    let placesY = placesX + vec4<u32>(4u);`;
}

/** From scores to exponentials; a block that the row cannot see changes no bit of its state. */
function softmaxWgsl(r: number, vecs: number): string {
  const floor = `vec4<f32>(${EMPTY_LSE}f)`;
  const mask = (v: string, places: string) =>
    `${v}${r} = select(${floor}, ${v}${r}, (${places} >= vec4<u32>(entry${r}.kvFrom)) & (${places} < vec4<u32>(entry${r}.kvLimit)));`;
  const weigh = (v: string) => `${v}${r} = select(exp(${v}${r} - raised${r}), vec4<f32>(), ${v}${r} <= ${floor});`;
  return /* wgsl */ `
    ${mask("x", "placesX")} ${mask("y", "placesY")}
    let raised${r} = max(top${r}, largest(max(x${r}, y${r})));
    let factor${r} = select(exp(top${r} - raised${r}), 1.0, top${r} == raised${r});
    top${r} = raised${r};
    ${weigh("x")} ${weigh("y")}
    mass${r} = mass${r} * factor${r} + dot(x${r} + y${r}, vec4<f32>(1.0));
    ${unroll(vecs, (i) => `o${r}_${i} *= factor${r};`)}`;
}

function valuesWgsl(options: SoftwareTile): string {
  const rows = options.rowsPerLane;
  const use = (piece: number) =>
    unroll(rows, (r) => `o${r}_${2 * piece} += w${r} * a; o${r}_${2 * piece + 1} += w${r} * b;`);
  return /* wgsl */ `
    for (var j = 0u; j < ${BLOCK_ROWS}u; j++) {
      let row = address + j * ${options.headDim / 8}u;
      let inX = select(vec4<f32>(), vec4<f32>(1.0), vec4<u32>(0u, 1u, 2u, 3u) == vec4<u32>(j));
      let inY = select(vec4<f32>(), vec4<f32>(1.0), vec4<u32>(4u, 5u, 6u, 7u) == vec4<u32>(j));
      ${unroll(rows, (r) => `let w${r} = dot(x${r}, inX) + dot(y${r}, inY);`)}
      ${piecesWgsl(options, "v", use)}
    }`;
}

function storeRow(r: number, { vecs }: SoftwareTile & { vecs: number }): string {
  return /* wgsl */ `
  if (stored${r}) {
    let share = select(0.0, 1.0 / max(mass${r}, 1e-30), mass${r} > 0.0);
    ${unroll(vecs, (i) => `outO[state${r} * ${vecs}u + ${i}u] = o${r}_${i} * share;`)}
    outLse[state${r}] = select(${EMPTY_LSE}f, top${r} + log(max(mass${r}, 1e-30)), mass${r} > 0.0);
  }
`;
}
