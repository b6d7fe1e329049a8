/**
 * The text itself, page by page of the KV cache, with what a row read marked in it. 100,000 tokens are some thousand blocks
 * of plain text, of which the browser lays out only what is seen; marks are highlights over the text and change no element.
 */

import type { VNode } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { whole } from "../chat/plain_words.ts";
import { memo } from "./memo.ts";
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
  const pageTokens = recording.layout?.pageTokens ?? 64;
  const pages = Math.ceil(recording.textEnd / pageTokens);
  useEffect(() => {
    if (place.current !== null) mark(place.current, recording, row);
  }, [version, row, pages]);
  useEffect(() => {
    if (place.current !== null && target !== undefined) show(place.current, recording, target.position);
  }, [target]);
  return (
    <div class="text" ref={place} tabIndex={0} role="region" aria-label="The text that is read">
      {Array.from({ length: pages }, (_, page) => (
        <PageText
          key={page}
          page={page}
          pageTokens={pageTokens}
          worker={recording.workers > 1 ? recording.workerOf(page * pageTokens) : undefined}
          text={recording.text(page * pageTokens, (page + 1) * pageTokens)}
        />
      ))}
    </div>
  );
}

interface PageProps {
  readonly page: number;
  readonly pageTokens: number;
  readonly worker: number | undefined;
  readonly text: string;
}

const PageText = memo(({ page, pageTokens, worker, text }: PageProps): VNode => (
  <div class={worker === undefined ? "kv-page" : `kv-page worker-${worker % 4}`}>
    <span class="number" aria-hidden="true" title={worker === undefined ? undefined : `Worker ${worker}`}>
      {whole(page * pageTokens)}
    </span>
    <span class="tokens-text">{text}</span>
  </div>
));

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

/** Scrolls to a position and marks it for a moment. */
function show(place: HTMLElement, recording: Recording, position: number): void {
  const range = new TextPlaces(place, recording).rangeOf(position);
  const page = range?.startContainer.parentElement?.closest<HTMLElement>(".kv-page");
  if (range === undefined || !page) return;
  place.scrollTop = page.offsetTop - place.clientHeight / 3;
  if ("highlights" in CSS) CSS.highlights.set("tide-here", new Highlight(range));
}

/** Finds the text of a position among the blocks. */
class TextPlaces {
  readonly #blocks: HTMLCollectionOf<Element>;
  readonly #recording: Recording;
  readonly #pageTokens: number;

  constructor(place: HTMLElement, recording: Recording) {
    this.#blocks = place.getElementsByClassName("tokens-text");
    this.#recording = recording;
    this.#pageTokens = recording.layout?.pageTokens ?? 64;
  }

  rangeOf(position: number): Range | undefined {
    const page = Math.floor(position / this.#pageTokens);
    const node = this.#blocks[page]?.firstChild;
    const piece = this.#recording.piece(position);
    if (!(node instanceof Text) || piece === "") return undefined;
    const start = this.#recording.text(page * this.#pageTokens, position).length;
    if (start + piece.length > node.length) return undefined;
    const range = new Range();
    range.setStart(node, start);
    range.setEnd(node, start + piece.length);
    return range;
  }
}
