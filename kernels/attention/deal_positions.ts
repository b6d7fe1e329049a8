/**
 * Chosen positions of a sequence that several slices hold, dealt to these: of each set the rows that lie in one slice, in order.
 * Knows pages and positions; knows nothing of who owns a slice, or of how positions were chosen.
 */

import type { Commands, KernelSpec } from "../pipeline.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { reads, writes } from "../wgsl.ts";
import { NO_POSITION, ROW_TABLE_WGSL, ROW_WORDS } from "./row_table.ts";

/** Bits of a page's place that say where it lies in its slice; those above are the slice's number. */
const PAGE_BITS = 24;

/** The place of a page: which slice holds it, and where among that one's pages of the sequence. */
export function pagePlace(slice: number, localPage: number): number {
  return slice * 2 ** PAGE_BITS + localPage;
}

/** What `dealPositions` reads and writes. */
export interface DealPositions {
  /** First row of the call in the row table. */
  readonly firstRow: number;
  readonly rows: number;
  /** u32 `[all rows, 8]`: slots of sequences in `places`, and how many positions each row has chosen at most. */
  readonly rowTable: Tensor;
  /** u32 `[sequences, maxPages]`, see `pagePlace`. */
  readonly places: Tensor;
  readonly maxPages: number;
  /** u32 `[rows, sets, stride]`, ascending: the first min(selected, kvLimit) of each set; `NO_POSITION` is none. */
  readonly positions: Tensor;
  readonly sets: number;
  readonly stride: number;
  readonly slice: number;
  /** Written: u32 `[rows, sets, dealtStride]`, local rows of the slice, ascending, filled up with `NO_POSITION`. */
  readonly dealt: Tensor;
  /** Those of a set that lie in the slice must find room. */
  readonly dealtStride: number;
}

const THREADS = 256;

/**
 * Deals positions to one slice.
 * @throws {GpuError} `invalid_shape`
 */
export function dealPositions(commands: Commands, args: DealPositions): void {
  const { firstRow, rows, rowTable, places, maxPages, positions, sets, stride, slice, dealt, dealtStride } = args;
  const op = "deal_positions";
  expectTensor(op, rowTable, "u32", [firstRow + rows, ROW_WORDS]);
  expectTensor(op, positions, "u32", [rows, sets, stride]);
  expectTensor(op, dealt, "u32", [rows, sets, dealtStride]);
  commands.dispatch(commands.kernel(op, spec), {
    tensors: [rowTable, places, positions, dealt],
    params: { firstRow, maxPages, sets, stride, slice, dealtStride },
    groups: [sets, rows, 1],
  });
}

function spec(): KernelSpec {
  return {
    bindings: [
      reads("rowTable", "array<vec4<u32>>"),
      reads("places", "array<u32>"),
      reads("positions", "array<u32>"),
      writes("dealt", "array<u32>"),
    ],
    params: ["firstRow", "maxPages", "sets", "stride", "slice", "dealtStride"].map((name) => [name, "u32"]),
    source: SOURCE,
  };
}

/** Each thread takes a share of the list; how many lie here before its share says where it puts its own. */
const SOURCE = /* wgsl */ `
${ROW_TABLE_WGSL}
var<workgroup> counts: array<u32, ${THREADS}>;
const ELSEWHERE = ${NO_POSITION}u;
fn localRowOf(slot: u32, position: u32) -> u32 {
  if (position == ${NO_POSITION}u) { return ELSEWHERE; }
  let place = places[slot * params.maxPages + (position >> 6u)];
  let row = ((place & ${2 ** PAGE_BITS - 1}u) << 6u) + (position & 63u);
  return select(ELSEWHERE, row, place >> ${PAGE_BITS}u == params.slice);
}
// The sum of what this thread and those before it have; counts holds it for every thread.
fn upTo(t: u32, own: u32) -> u32 {
  counts[t] = own;
  workgroupBarrier();
  for (var reach = 1u; reach < ${THREADS}u; reach *= 2u) {
    let before = select(0u, counts[max(t, reach) - reach], t >= reach);
    workgroupBarrier();
    counts[t] += before;
    workgroupBarrier();
  }
  return counts[t];
}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let entry = readRow(params.firstRow + group.y);
  let list = group.y * params.sets + group.x;
  let chosen = min(entry.selected, entry.kvLimit);
  let share = (chosen + ${THREADS - 1}u) / ${THREADS}u;
  let first = list * params.stride + min(t * share, chosen);
  let end = list * params.stride + min((t + 1u) * share, chosen);
  var count = 0u;
  for (var i = first; i < end; i++) {
    count += select(0u, 1u, localRowOf(entry.sequenceSlot, positions[i]) != ELSEWHERE);
  }
  let to = list * params.dealtStride;
  var at = upTo(t, count) - count;
  for (var i = first; i < end; i++) {
    let row = localRowOf(entry.sequenceSlot, positions[i]);
    if (row != ELSEWHERE && at < params.dealtStride) {
      dealt[to + at] = row;
      at++;
    }
  }
  for (var i = counts[${THREADS}u - 1u] + t; i < params.dealtStride; i += ${THREADS}u) { dealt[to + i] = ${NO_POSITION}u; }
}
`;
