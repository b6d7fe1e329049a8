/**
 * What is known of one answer's reading: the rows as they came, the text at each position, and how often each position was
 * read. Bounded: of very long answers the oldest rows are forgotten, the counts stay.
 */

import type { TideEvent, TideLayout, TideRow } from "../service/tide_stream.ts";

/** One set of heads in one select layer. */
export interface Lane {
  readonly layer: number;
  readonly set: number;
  /** How often each position was chosen. */
  counts: Uint32Array;
}

/** A row with its choices packed. */
export interface RecordedRow {
  readonly position: number;
  readonly rows: number;
  readonly attention: TideRow["attention"];
  /** By lane, ascending; empty unless sparse. */
  readonly chosen: readonly Uint32Array[];
}

const MAX_ROWS = 4096;

/** The recording of one answer; the page keeps the newest few. */
export class Recording {
  readonly answer: string;
  layout: TideLayout | undefined;
  /** Oldest first. */
  readonly rows: RecordedRow[] = [];
  readonly lanes: Lane[] = [];
  /** Sparse rows that `counts` are over. */
  sparseRows = 0;
  /** Rows that are not in `rows` any more. */
  forgotten = 0;
  isOver = false;
  /** Grows with every change; views draw again when it did. */
  version = 0;
  readonly #answerPieces: string[] = [];
  #promptPieces: readonly string[] = [];

  constructor(answer: string) {
    this.answer = answer;
  }

  /** Positions in the cache after the newest row. */
  get context(): number {
    const last = this.rows.at(-1);
    return last === undefined ? this.layout?.promptTokens ?? 0 : last.position + last.rows;
  }

  /** Positions whose text is known. */
  get textEnd(): number {
    return this.#promptPieces.length + this.#answerPieces.length;
  }

  /** Positions of the prompt whose text is known. */
  get promptEnd(): number {
    return this.#promptPieces.length;
  }

  /** Takes in an event of the stream. */
  take(event: TideEvent): void {
    this.version++;
    if (event.kind === "layout") {
      this.layout = event;
      return;
    }
    const chosen = event.layers.flatMap(({ layer, sets }) =>
      sets.map((positions, set) => this.#count(this.#lane(layer, set), Uint32Array.from(positions)))
    );
    if (chosen.length > 0) this.sparseRows++;
    const { position, rows, attention } = event;
    this.rows.push({ position, rows, attention, chosen });
    if (this.rows.length <= MAX_ROWS) return;
    this.rows.shift();
    this.forgotten++;
  }

  /** The prompt's text, a piece for each token. */
  describe(pieces: readonly string[]): void {
    this.#promptPieces = pieces;
    this.version++;
  }

  /** A piece of the answer; the tokens that it came with share it. */
  append(text: string, tokens: number): void {
    for (let i = 0; i < tokens; i++) this.#answerPieces.push(i === tokens - 1 ? text : "");
    this.version++;
  }

  /** The text at a position. */
  piece(position: number): string {
    const inAnswer = position - this.#promptPieces.length;
    return inAnswer < 0 ? this.#promptPieces[position] ?? "" : this.#answerPieces[inAnswer] ?? "";
  }

  /** The text of the positions [from, to). */
  text(from: number, to: number): string {
    let text = "";
    for (let position = Math.max(0, from); position < to; position++) text += this.piece(position);
    return text;
  }

  /** Worker that holds a position. */
  workerOf(position: number): number {
    const { owners = [0], pageTokens = 64 } = this.layout ?? {};
    return owners[Math.floor(position / pageTokens) % owners.length] ?? 0;
  }

  get workers(): number {
    return Math.max(0, ...this.layout?.owners ?? []) + 1;
  }

  /** Whether a row reads a position whatever was chosen. */
  isForced(position: number, row: Pick<RecordedRow, "position">): boolean {
    const { sinks = 0, recent = 0 } = this.layout ?? {};
    return position < sinks || position > row.position - recent;
  }

  #lane(layer: number, set: number): Lane {
    const known = this.lanes.find((lane) => lane.layer === layer && lane.set === set);
    if (known !== undefined) return known;
    const lane = { layer, set, counts: new Uint32Array(this.context + 1024) };
    this.lanes.push(lane);
    return lane;
  }

  #count(lane: Lane, positions: Uint32Array): Uint32Array {
    const last = positions.at(-1) ?? 0;
    if (last >= lane.counts.length) {
      const longer = new Uint32Array(last + 1024);
      longer.set(lane.counts);
      lane.counts = longer;
    }
    for (const position of positions) lane.counts[position] = (lane.counts[position] ?? 0) + 1;
    return positions;
  }
}
