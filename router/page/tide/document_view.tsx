/**
 * The text itself, page by page of the KV cache, with what a row read marked in it. 100,000 tokens are some thousand blocks
 * of plain text, and the browser lays out only those that are visible; marks are highlights over the text and change no
 * element.
 */

import type { VNode } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { whole } from "../chat/plain_words.ts";
import type { RecordedRow, Recording } from "./recording.ts";

interface DocumentProps {
  readonly recording: Recording;
  readonly version: number;
  readonly row: RecordedRow | undefined;
  /** Scrolled to when it changes. */
  readonly target: { readonly position: number } | undefined;
}

/** The document of a recording. */
export function DocumentView({ recording, version, row, target }: DocumentProps): VNode {
  const place = useRef<HTMLDivElement>(null);
  const { layout, promptEnd, textEnd } = recording;
  const pageTokens = layout?.pageTokens ?? 64;
  const [settled, pages] = [Math.floor(promptEnd / pageTokens), Math.ceil(textEnd / pageTokens)];
  // The prompt does not change: its blocks are made once, and not compared again.
  const prompt = useMemo(() => blocks(recording, 0, settled), [recording, layout, settled]);
  useEffect(() => {
    if (place.current !== null) mark(place.current, recording, row);
  }, [version, row, pages]);
  useEffect(() => {
    if (place.current !== null && target !== undefined) show(place.current, recording, target.position);
  }, [target]);
  return (
    <div class="text" ref={place} tabIndex={0} role="region" aria-label="The text that is read">
      {prompt}
      {blocks(recording, settled, pages)}
    </div>
  );
}

/** Pages [from, to), a block of text each, with the number of its first position. */
function blocks(recording: Recording, from: number, to: number): VNode[] {
  const pageTokens = recording.layout?.pageTokens ?? 64;
  return Array.from({ length: Math.max(0, to - from) }, (_, i) => {
    const first = (from + i) * pageTokens;
    const worker = recording.workers > 1 ? recording.workerOf(first) : undefined;
    return (
      <div
        key={first}
        class={worker === undefined ? "kv-page" : `kv-page worker-${worker % 4}`}
        data-first={whole(first)}
        title={worker === undefined ? undefined : `Worker ${worker}`}
      >
        {recording.text(first, first + pageTokens)}
      </div>
    );
  });
}

/** Marks what a row has chosen, the more the stronger, and what it reads anyway. */
function mark(place: HTMLElement, recording: Recording, row: RecordedRow | undefined): void {
  if (!("highlights" in CSS)) return;
  const marks = { "tide-some": new Highlight(), "tide-most": new Highlight(), "tide-forced": new Highlight() };
  const readers = new Map<number, number>();
  for (const positions of row?.chosen ?? []) {
    for (const position of positions) readers.set(position, (readers.get(position) ?? 0) + 1);
  }
  const sets = row?.chosen.length ?? 1;
  const places = new TextPlaces(place, recording);
  for (const [position, count] of readers) {
    const range = places.rangeOf(position);
    if (range === undefined || row === undefined) continue;
    const name = recording.isForced(position, row) ? "tide-forced" : count * 2 >= sets ? "tide-most" : "tide-some";
    marks[name].add(range);
  }
  for (const [name, highlight] of Object.entries(marks)) CSS.highlights.set(name, highlight);
}

/** Frames until the blocks around a place are laid out, and it stays where it was scrolled to. */
const SETTLE_FRAMES = 4;

/** Scrolls to a position and marks it for a moment. */
function show(place: HTMLElement, recording: Recording, position: number): void {
  const range = new TextPlaces(place, recording).rangeOf(position);
  if (range === undefined) return;
  if ("highlights" in CSS) CSS.highlights.set("tide-here", new Highlight(range));
  // Blocks that were never seen have the height of a guess; each frame lays some out, and what is below them moves.
  const scroll = (frames: number) => {
    const exact = range.getBoundingClientRect();
    const { top } = exact.height > 0 ? exact : range.startContainer.parentElement?.getBoundingClientRect() ?? exact;
    place.scrollTop += top - place.getBoundingClientRect().top - place.clientHeight / 3;
    if (frames > 1) requestAnimationFrame(() => scroll(frames - 1));
  };
  scroll(SETTLE_FRAMES);
}

/** Finds the text of a position among the blocks. */
class TextPlaces {
  readonly #blocks: HTMLCollectionOf<Element>;
  readonly #recording: Recording;
  readonly #pageTokens: number;
  /** Where the positions of a page begin in its text, of the pages that were asked for. */
  readonly #starts = new Map<number, readonly number[]>();

  constructor(place: HTMLElement, recording: Recording) {
    this.#blocks = place.getElementsByClassName("kv-page");
    this.#recording = recording;
    this.#pageTokens = recording.layout?.pageTokens ?? 64;
  }

  rangeOf(position: number): Range | undefined {
    const page = Math.floor(position / this.#pageTokens);
    const node = this.#blocks[page]?.firstChild;
    const piece = this.#recording.piece(position);
    if (!(node instanceof Text) || piece === "") return undefined;
    const start = this.#startsOf(page)[position - page * this.#pageTokens] ?? 0;
    if (start + piece.length > node.length) return undefined;
    const range = new Range();
    range.setStart(node, start);
    range.setEnd(node, start + piece.length);
    return range;
  }

  #startsOf(page: number): readonly number[] {
    const known = this.#starts.get(page);
    if (known !== undefined) return known;
    const starts = [0];
    for (let i = 0; i < this.#pageTokens; i++) {
      starts.push((starts[i] ?? 0) + this.#recording.piece(page * this.#pageTokens + i).length);
    }
    this.#starts.set(page, starts);
    return starts;
  }
}
