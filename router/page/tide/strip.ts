/**
 * The strip: a whole document in one canvas, from its first position on the left to its newest on the right. Above, a lane
 * for each select layer and set of heads, with all rows so far; below, a line for each row, the newest at the bottom.
 */

import type { RecordedRow, Recording } from "./recording.ts";

/** Colours as the style sheet has them, r g b. */
export interface Palette {
  readonly ground: Colour;
  readonly low: Colour;
  readonly high: Colour;
  readonly forced: Colour;
  readonly workers: readonly Colour[];
}

type Colour = readonly [red: number, green: number, blue: number];

/** Sizes in device pixels. */
export interface StripSize {
  readonly width: number;
  readonly laneHeight: number;
  readonly bandHeight: number;
  readonly gap: number;
  readonly fallHeight: number;
  readonly lineHeight: number;
}

/** What is shown. */
export interface StripView {
  readonly recording: Recording;
  /** Index of the lane whose rows are shown; undefined: all of them together. */
  readonly lane: number | undefined;
  /** Index in `recording.rows` of the row that is marked. */
  readonly row: number | undefined;
}

/** A bin is as hot as can be when this share of its positions is read, or of this many: a fact is about so long. */
const FULL_SHARE = 0.6;
const FULL_POSITIONS = 12;

/** Height of everything above the falling lines. */
export function lanesHeight({ lanes, workers }: Recording, size: StripSize): number {
  const bands = workers > 1 ? size.bandHeight + size.gap : 0;
  return lanes.length * (size.laneHeight + size.gap) + bands;
}

/** Draws all of it: a few milliseconds for 100,000 positions. */
export function drawStrip(context: CanvasRenderingContext2D, view: StripView, style: {
  readonly size: StripSize;
  readonly palette: Palette;
}): void {
  const { size, palette } = style;
  const { recording } = view;
  const height = lanesHeight(recording, size) + size.fallHeight;
  const image = context.createImageData(size.width, height);
  // Whole pixels at once: four bytes apart take several times as long.
  const pixels = new Uint32Array(image.data.buffer).fill(pixelOf(palette.ground));
  let top = 0;
  for (const { counts } of recording.lanes) {
    const full = Math.max(1, recording.sparseRows) * fullBin(recording.context, size.width);
    const heat = binned(counts, recording.context, size.width).map((count) => count / full);
    paint(pixels, { top, height: size.laneHeight, heat, palette, forced: forcedBins(recording, undefined, size) });
    top += size.laneHeight + size.gap;
  }
  if (recording.workers > 1) {
    paintWorkers(pixels, { recording, top, size, palette });
    top += size.bandHeight + size.gap;
  }
  const lines = Math.floor(size.fallHeight / size.lineHeight);
  const first = firstLine(view, lines);
  for (const [line, row] of recording.rows.slice(first, first + lines).entries()) {
    paintRow(pixels, row, { view, size, palette, top: top + line * size.lineHeight });
  }
  context.putImageData(image, 0, 0);
}

/** Index of the row on the first line: the newest rows, or those around the marked one. */
export function firstLine({ recording: { rows }, row }: StripView, lines: number): number {
  const newest = Math.max(0, rows.length - lines);
  return row === undefined ? newest : Math.max(0, Math.min(newest, row - Math.floor(lines / 2)));
}

function paintRow(pixels: Uint32Array, row: RecordedRow, { view: { recording, lane }, size, palette, top }: {
  readonly view: StripView;
  readonly size: StripSize;
  readonly palette: Palette;
  readonly top: number;
}): void {
  const { width } = size;
  const height = Math.max(1, size.lineHeight - (size.lineHeight > 2 ? 1 : 0));
  const chosen = lane === undefined ? row.chosen : row.chosen.slice(lane, lane + 1);
  const heat = new Float64Array(width);
  if (chosen.length === 0) {
    // It read everything up to itself.
    heat.fill(0.3, 0, Math.ceil((row.position + 1) / Math.max(1, recording.context) * width));
    return paint(pixels, { top, height, heat, palette, forced: undefined });
  }
  const full = fullBin(recording.context, width);
  for (const positions of chosen) {
    const counts = new Uint32Array(width);
    for (const position of positions) {
      const bin = Math.floor(position / recording.context * width);
      const count = (counts[bin] ?? 0) + 1;
      counts[bin] = count;
      // The hottest of the sets counts: what one head alone looks at must show as well.
      heat[bin] = Math.max(heat[bin] ?? 0, count / full);
    }
  }
  paint(pixels, { top, height, heat, palette, forced: forcedBins(recording, row, size) });
}

/** By bin: whether what is read there is read whatever is chosen. Without a row, of all rows together. */
function forcedBins({ layout, context }: Recording, row: RecordedRow | undefined, { width }: StripSize) {
  const { sinks = 0, recent = 0, promptTokens = 0 } = layout ?? {};
  const newest = row === undefined ? [promptTokens - recent, context] : [row.position + 1 - recent, row.position + 1];
  const binOf = (position: number) => Math.floor(position / Math.max(1, context) * width);
  return [[0, binOf(sinks)], [binOf(newest[0] ?? 0), binOf(newest[1] ?? 0)]] as const;
}

function paint(pixels: Uint32Array, { top, height, heat, palette, forced }: {
  readonly top: number;
  readonly height: number;
  /** By bin, 0 to 1 and above. */
  readonly heat: Float64Array;
  readonly palette: Palette;
  readonly forced: ReturnType<typeof forcedBins> | undefined;
}): void {
  const { length: width } = heat;
  for (let bin = 0; bin < width; bin++) {
    const hot = heat[bin] ?? 0;
    if (hot === 0) continue;
    const isForced = forced?.some(([from, to]) => bin >= from && bin <= to) ?? false;
    const shown = Math.min(1, hot) ** 0.8;
    const colour = isForced ? mixed(palette.ground, palette.forced, 0.35 + 0.65 * shown) : ramp(palette, shown);
    pixels[top * width + bin] = pixelOf(colour);
  }
  repeatLine(pixels, { top, height, width });
}

function paintWorkers(pixels: Uint32Array, { recording, top, size, palette }: {
  readonly recording: Recording;
  readonly top: number;
  readonly size: StripSize;
  readonly palette: Palette;
}): void {
  for (let bin = 0; bin < size.width; bin++) {
    const worker = recording.workerOf(Math.floor(bin / size.width * recording.context));
    const colour = palette.workers[worker % palette.workers.length] ?? palette.low;
    pixels[top * size.width + bin] = pixelOf(colour);
  }
  repeatLine(pixels, { top, height: size.bandHeight, width: size.width });
}

/** Cold to hot in two steps, so that both few and many reads differ from their neighbours. */
function ramp({ ground, low, high }: Palette, heat: number): Colour {
  return heat < 0.5 ? mixed(ground, low, 0.2 + 1.6 * heat) : mixed(low, high, 2 * heat - 1);
}

function mixed(a: Colour, b: Colour, share: number): Colour {
  const at = (i: 0 | 1 | 2) => a[i] + (b[i] - a[i]) * Math.min(1, share);
  return [at(0), at(1), at(2)];
}

function binned(counts: Uint32Array, context: number, width: number): Float64Array {
  const bins = new Float64Array(width);
  for (let position = 0; position < Math.min(context, counts.length); position++) {
    const count = counts[position] ?? 0;
    if (count === 0) continue;
    const bin = Math.floor(position / context * width);
    bins[bin] = (bins[bin] ?? 0) + count;
  }
  return bins;
}

function fullBin(context: number, width: number): number {
  return Math.max(1, FULL_SHARE * Math.min(FULL_POSITIONS, context / width));
}

/** Makes the lines below a line like it. */
function repeatLine(pixels: Uint32Array, { top, height, width }: {
  readonly top: number;
  readonly height: number;
  readonly width: number;
}): void {
  for (let line = 1; line < height; line++) {
    pixels.copyWithin((top + line) * width, top * width, (top + 1) * width);
  }
}

/** Opaque, in the byte order of all machines that run browsers. */
function pixelOf([red, green, blue]: Colour): number {
  return (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
}
