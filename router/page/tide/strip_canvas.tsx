/** The strip as a part of the page: follows its size, its colours, the pointer and the keyboard. */

import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { whole } from "../chat/plain_words.ts";
import { scheme } from "../frame/theme.ts";
import { paletteOf } from "./palette.ts";
import type { Passage } from "./passages.ts";
import type { Recording } from "./recording.ts";
import { drawStrip, firstLine, lanesHeight, type StripSize } from "./strip.ts";
import type { TideSelection } from "./tide_selection.ts";
import { useObserved } from "../frame/use_observed.ts";

/** Text around a position, in tokens. */
const CONTEXT_TOKENS = 12;

const FALL_PX = 132;

/** Few rows get thick lines, so that a short answer fills the place too. */
const LINE_PX = { thin: 3, thick: 9 };

interface StripProps {
  readonly recording: Recording;
  readonly version: number;
  readonly passages: readonly Passage[];
  readonly selection: TideSelection;
  readonly onChange: (changed: Partial<TideSelection>) => void;
}

function sizeFor({ rows }: Recording, width: number, ratio: number): StripSize {
  const px = (value: number) => Math.round(value * ratio);
  const line = Math.max(LINE_PX.thin, Math.min(LINE_PX.thick, Math.floor(FALL_PX / Math.max(1, rows.length))));
  return { width, laneHeight: px(12), bandHeight: px(5), gap: px(2), fallHeight: px(FALL_PX), lineHeight: px(line) };
}

/** The canvas, what it means, and the text under the pointer. */
export function StripCanvas({ recording, version, passages, selection, onChange }: StripProps): VNode {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const colours = useObserved(scheme);
  const ratio = devicePixelRatio;
  const size = sizeFor(recording, Math.round(width * ratio), ratio);
  useEffect(() => {
    const element = canvas.current;
    if (element === null) return;
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry?.contentRect.width ?? 0)));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const height = lanesHeight(recording, size) + size.fallHeight;
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context || size.width === 0) return;
    context.canvas.width = size.width;
    context.canvas.height = height;
    drawStrip(context, { recording, ...selection }, { size, palette: paletteOf(context.canvas) });
  }, [version, size.width, colours, selection.row, selection.lane]);
  return (
    <div class="strip">
      <Lanes recording={recording} selection={selection} onChange={onChange} />
      <div class="canvas">
        <Flags recording={recording} passages={passages} onChange={onChange} />
        <canvas
          ref={canvas}
          style={{ height: `${height / ratio}px` }}
          aria-hidden="true"
          onPointerMove={(event) => onChange({ position: positionAt(recording, event, width) })}
          onClick={(event) => onChange(pointedAt(recording, event, { selection, size, ratio, width }))}
        />
        <Cursor recording={recording} selection={selection} onChange={onChange} />
      </div>
      <Legend recording={recording} />
    </div>
  );
}

function positionAt({ context }: Recording, { offsetX }: MouseEvent, width: number): number {
  return Math.max(0, Math.min(context - 1, Math.floor(offsetX / Math.max(1, width) * context)));
}

/** A click shows the text, and, among the falling lines, the row. */
function pointedAt(recording: Recording, event: MouseEvent, { selection, size, ratio, width }: {
  readonly selection: TideSelection;
  readonly size: StripSize;
  readonly ratio: number;
  readonly width: number;
}): Partial<TideSelection> {
  const position = positionAt(recording, event, width);
  const line = Math.floor((event.offsetY * ratio - lanesHeight(recording, size)) / size.lineHeight);
  const target = { position };
  if (line < 0) return { position, target };
  const lines = Math.floor(size.fallHeight / size.lineHeight);
  const row = firstLine({ recording, ...selection }, lines) + line;
  return { position, target, ...(row < recording.rows.length && { row }) };
}

/** Where a passage stands out; the list under the strip says the same in words. */
function Flags({ recording, passages, onChange }: Pick<StripProps, "recording" | "passages" | "onChange">): VNode {
  return (
    <div class="flags" aria-hidden="true">
      {passages.map(({ from }, i) => (
        <span
          key={from}
          class="flag"
          style={{ left: `${from / Math.max(1, recording.context) * 100}%` }}
          onClick={() => onChange({ position: from, target: { position: from } })}
        >
          {i + 1}
        </span>
      ))}
    </div>
  );
}

/** A line at the position that is pointed at, which the keyboard moves too. */
function Cursor(
  { recording, selection: { position, row }, onChange }: Omit<StripProps, "version" | "passages">,
): VNode {
  const { context } = recording;
  const at = Math.min(position ?? 0, Math.max(0, context - 1));
  const around = recording.text(at - CONTEXT_TOKENS, at + CONTEXT_TOKENS).replace(/\s+/g, " ");
  const reads = readersAt(recording, at, row);
  const worker = recording.workers > 1 ? `, held by worker ${recording.workerOf(at)}` : "";
  const words = `Position ${whole(at)}${worker}, ${reads}: ${around}`;
  return (
    <>
      <label class="cursor">
        <span class="hidden">Position</span>
        <input
          type="range"
          min={0}
          max={Math.max(0, context - 1)}
          step={Math.max(1, Math.floor(context / 500))}
          value={at}
          aria-valuetext={words}
          onInput={(event) => {
            const moved = Number(event.currentTarget.value);
            onChange({ position: moved, target: { position: moved } });
          }}
        />
      </label>
      {position !== undefined && (
        <span class="line" aria-hidden="true" style={{ left: `${(at + 0.5) / Math.max(1, context) * 100}%` }} />
      )}
      <p class="here">
        <span class="where">{whole(at)}</span>
        <span class="text">{position === undefined ? "Point at the strip to see the text there" : around}</span>
        {position !== undefined && <span class="much">{reads}{worker}</span>}
      </p>
    </>
  );
}

/** How many sets of heads read around a position, in words. */
function readersAt({ rows, lanes }: Recording, position: number, index: number | undefined): string {
  const row = rows[index ?? rows.length - 1];
  if (row === undefined || row.chosen.length === 0) return "read by all";
  const near = row.chosen.filter((positions) => positions.some((chosen) => Math.abs(chosen - position) <= 2)).length;
  return `read by ${near} of ${lanes.length}`;
}

/** One button for each select layer and set of heads. */
function Lanes({ recording: { lanes }, selection, onChange }: Omit<StripProps, "version" | "passages">): VNode | null {
  if (lanes.length === 0) return null;
  return (
    <div class="lanes" role="group" aria-label="Select layers and KV heads">
      <span aria-hidden="true">Layer · head</span>
      <button type="button" aria-pressed={selection.lane === undefined} onClick={() => onChange({ lane: undefined })}>
        All
      </button>
      {lanes.map(({ layer, set }, lane) => (
        <button
          key={`${layer} ${set}`}
          type="button"
          aria-pressed={selection.lane === lane}
          aria-label={`Layer ${layer}, KV head ${set}`}
          onClick={() => onChange({ lane: selection.lane === lane ? undefined : lane })}
        >
          {layer}·{set}
        </button>
      ))}
    </div>
  );
}

function Legend({ recording }: { readonly recording: Recording }): VNode {
  const { layout, workers } = recording;
  return (
    <ul class="legend">
      <li class="heat">Chosen</li>
      {layout !== undefined && layout.budget < recording.context && (
        <li class="forced">Always read: the first {layout.sinks} and the newest {layout.recent}</li>
      )}
      {workers > 1 &&
        Array.from(
          { length: workers },
          (_, worker) => <li key={worker} class={`worker worker-${worker % 4}`}>Worker {worker}</li>,
        )}
    </ul>
  );
}
