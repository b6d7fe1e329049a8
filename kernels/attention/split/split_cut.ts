/**
 * Where the KV rows of a row are cut into splits: at multiples of a length that depends on how many the row itself sees,
 * and on nothing else, so that its bits depend on nothing else. Knows counts; knows nothing of what computes a split.
 */

/** KV rows of a split of rows that see so many. */
export interface SplitLength {
  readonly rows: number;
  /** Most KV rows of a row that is cut so. */
  readonly upTo: number;
}

/** One way to cut. */
export interface SplitCut {
  /** Whether the positions of a selection are cut, instead of the visible rows. */
  readonly gathered: boolean;
  /** Ascending; the last is for any number. */
  readonly lengths: readonly SplitLength[];
}

/** KV rows of a split of the plain kernel. */
export const SPLIT_ROWS = 256;

/** Every row at the same length. */
export function evenCut({ gathered, splitRows }: { readonly gathered: boolean; readonly splitRows: number }): SplitCut {
  return { gathered, lengths: [{ rows: splitRows, upTo: Infinity }] };
}

/** The visible rows, for the plain kernel. */
export const PLAIN_CUT: SplitCut = evenCut({ gathered: false, splitRows: SPLIT_ROWS });

/**
 * Positions of a split of a selection: few on GPUs, so that 512 positions occupy more of them and each workgroup waits for a
 * single round of loads; on a CPU splits only cost.
 */
export const GATHERED_SPLIT_ROWS = { software: SPLIT_ROWS, hardware: 64 } as const;

/** A selection, for the plain kernel. */
export const GATHERED_CUTS = {
  software: evenCut({ gathered: true, splitRows: GATHERED_SPLIT_ROWS.software }),
  hardware: evenCut({ gathered: true, splitRows: GATHERED_SPLIT_ROWS.hardware }),
} as const satisfies Record<string, SplitCut>;

/**
 * The visible rows, for matrix tiles. A short row is cut finely, to occupy a GPU; a long one coarsely, as each split costs
 * a start, a state and its merge: a row has about a hundred splits at most, so that the states of 32 rows fit into scratch.
 */
export const MATRIX_CUT: SplitCut = {
  gathered: false,
  lengths: [
    { rows: 64, upTo: 2048 },
    { rows: 128, upTo: 4096 },
    { rows: 256, upTo: 16_384 },
    { rows: 512, upTo: 32_768 },
    { rows: 1024, upTo: 114_688 },
    { rows: 2048, upTo: 229_376 },
    { rows: 4096, upTo: Infinity },
  ],
};

/** Tells cuts apart in the names of kernels. */
export function cutName({ gathered, lengths }: SplitCut): string {
  const pieces = lengths.map(({ rows, upTo }) => upTo === Infinity ? `${rows}` : `${rows} to ${upTo}`);
  return `${gathered ? "gathered" : "visible"} by ${pieces.join(", ")}`;
}

/** Splits that one row may need which visits up to `longest` KV rows; visible ones may start and end inside a split. */
export function splitsOf({ gathered, lengths }: SplitCut, longest: number): number {
  const more = gathered ? 0 : 1;
  return Math.max(1, ...lengthsWithin(lengths, longest).map(({ rows, upTo }) => Math.ceil(upTo / rows) + more));
}

/**
 * The same for consecutive rows that are cut together: some see KV rows that others do not, and near a bound some are cut
 * at one length and some at the next.
 */
export function jointSplitsOf(cut: SplitCut, longest: number, rowsTogether: number): number {
  if (rowsTogether === 1) return splitsOf(cut, longest);
  const apart = rowsTogether - 1;
  const within = lengthsWithin(cut.lengths, longest + apart);
  const counts = within.map(({ rows, upTo }, i) => {
    const shorter = within[i - 1];
    const own = Math.ceil((upTo + apart) / rows) + 1;
    const near = shorter === undefined ? 0 : [shorter.rows, rows]
      .reduce((sum, length) => sum + Math.ceil((shorter.upTo + 2 * apart) / length) + 1, 0);
    return Math.max(own, near);
  });
  return Math.max(1, ...counts);
}

/** The lengths that occur up to `longest` KV rows, which ends the last. */
function lengthsWithin(lengths: readonly SplitLength[], longest: number): readonly SplitLength[] {
  return lengths
    .filter((_, i) => i === 0 || (lengths[i - 1]?.upTo ?? 0) < longest)
    .map(({ rows, upTo }) => ({ rows, upTo: Math.min(upTo, longest) }));
}

/** WGSL: KV rows of a split of a row that sees `count`. */
export function splitLengthWgsl({ lengths }: SplitCut): string {
  const [last, ...shorter] = lengths.toReversed();
  return /* wgsl */ `
fn splitLength(count: u32) -> u32 {
  var rows = ${last?.rows ?? SPLIT_ROWS}u;
${shorter.map(({ rows, upTo }) => `  if (count <= ${upTo}u) { rows = ${rows}u; }`).join("\n")}
  return rows;
}
`;
}

/** WGSL: the splits of a row: `first` in multiples of their length, and how many are `live`. */
export function splitRangeWgsl(cut: SplitCut): string {
  const body = cut.gathered
    ? `
  let count = min(row.selected, row.kvLimit);
  let length = splitLength(count);
  return SplitRange(0u, (count + length - 1u) / length);`
    : `
  if (row.kvLimit <= row.kvFrom) { return SplitRange(0u, 0u); }
  let length = splitLength(row.kvLimit - row.kvFrom);
  let first = row.kvFrom / length;
  return SplitRange(first, (row.kvLimit - 1u) / length - first + 1u);`;
  return /* wgsl */ `${splitLengthWgsl(cut)}
struct SplitRange { first: u32, live: u32 }
fn splitRange(row: Row) -> SplitRange {${body}
}
`;
}
