/**
 * Line charts as SVG text: panels side by side over one legend. Knows numbers, axes and ticks; knows nothing of what is
 * drawn. The background is white whatever page shows it, because lines and text are drawn dark.
 */

/** A line, the same in every panel that has it. */
export interface LineStyle {
  readonly name: string;
  /** As SVG has it. */
  readonly colour: string;
  /** Lengths of dashes and gaps, as SVG has them. @default a solid line */
  readonly dashes?: string;
}

/** A chart with axes of its own. */
export interface LinePanel {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  /** For each line of the plot, its points in order of x. */
  readonly points: readonly (readonly (readonly [x: number, y: number])[])[];
}

/** Everything in one picture. */
export interface LinePlot {
  /** What it shows, for those who cannot see it. */
  readonly title: string;
  readonly lines: readonly LineStyle[];
  readonly panels: readonly LinePanel[];
}

/** Of the drawn area of a panel, in pixels. */
const [WIDTH, HEIGHT] = [360, 260];

/** Around each panel: room for the title above, and for ticks and labels at the left and below. */
const MARGIN = { left: 64, right: 16, top: 34, bottom: 56 } as const;

const LEGEND = { column: 215, row: 20, sample: 30 } as const;

/** A picture of a plot. */
export function linePlot({ title, lines, panels }: LinePlot): string {
  const panelWidth = MARGIN.left + WIDTH + MARGIN.right;
  const panelHeight = MARGIN.top + HEIGHT + MARGIN.bottom;
  const width = Math.max(1, panels.length) * panelWidth;
  const columns = Math.max(1, Math.floor((width - MARGIN.left) / LEGEND.column));
  const legendRows = Math.ceil(lines.length / columns);
  const height = panelHeight + (legendRows + 0.5) * LEGEND.row;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" ` +
    `role="img" font-family="sans-serif" font-size="12" fill="#222222">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    ...panels.flatMap((panel, i) => drawPanel(panel, lines, i * panelWidth + MARGIN.left)),
    ...lines.map((line, i) => {
      const [column, row] = [Math.floor(i / legendRows), i % legendRows];
      const at = { x: MARGIN.left + column * LEGEND.column, y: panelHeight + (row + 0.5) * LEGEND.row };
      return drawLegend(line, at);
    }),
    "</svg>",
    "",
  ].join("\n");
}

/** @param left of the drawn area */
function drawPanel({ title, xLabel, yLabel, points }: LinePanel, lines: readonly LineStyle[], left: number): string[] {
  const x = axisOf(points.flatMap((line) => line.map((point) => point[0])), { from: 0, to: WIDTH });
  const y = axisOf(points.flatMap((line) => line.map((point) => point[1])), { from: HEIGHT, to: 0 });
  return [
    `<g transform="translate(${left} ${MARGIN.top})">`,
    text(title, { x: WIDTH / 2, y: -14, anchor: "middle", extra: ` font-weight="bold"` }),
    ...x.ticks.flatMap(({ at, label }) => [
      `<line x1="${at}" y1="0" x2="${at}" y2="${HEIGHT}" stroke="#e4e4e4"/>`,
      text(label, { x: at, y: HEIGHT + 17, anchor: "middle" }),
    ]),
    ...y.ticks.flatMap(({ at, label }) => [
      `<line x1="0" y1="${at}" x2="${WIDTH}" y2="${at}" stroke="#e4e4e4"/>`,
      text(label, { x: -7, y: at + 4, anchor: "end" }),
    ]),
    `<path d="M0 0V${HEIGHT}H${WIDTH}" fill="none" stroke="#222222"/>`,
    text(xLabel, { x: WIDTH / 2, y: HEIGHT + 38, anchor: "middle" }),
    text(yLabel, { x: -HEIGHT / 2, y: -48, anchor: "middle", extra: ` transform="rotate(-90)"` }),
    ...lines.flatMap((line, i) => {
      const own = (points[i] ?? []).map((point) => `${round(x.place(point[0]))},${round(y.place(point[1]))}`);
      return own.length === 0 ? [] : [`<polyline points="${own.join(" ")}" fill="none"${stroke(line)}/>`];
    }),
    "</g>",
  ];
}

function drawLegend(line: LineStyle, { x, y }: { readonly x: number; readonly y: number }): string {
  const sample = `<line x1="${x}" y1="${y}" x2="${x + LEGEND.sample}" y2="${y}"${stroke(line)}/>`;
  return `${sample}${text(line.name, { x: x + LEGEND.sample + 8, y: y + 4, anchor: "start" })}`;
}

function stroke({ colour, dashes }: LineStyle): string {
  const pattern = dashes === undefined ? "" : ` stroke-dasharray="${escaped(dashes)}"`;
  return ` stroke="${escaped(colour)}" stroke-width="2"${pattern}`;
}

function text(
  content: string,
  { x, y, anchor, extra = "" }: { x: number; y: number; anchor: "start" | "middle" | "end"; extra?: string },
): string {
  return `<text x="${x}" y="${y}" text-anchor="${anchor}"${extra}>${escaped(content)}</text>`;
}

interface Axis {
  readonly ticks: readonly { readonly at: number; readonly label: string }[];
  /** From a value to pixels. */
  place(value: number): number;
}

/** An axis from one round number to another, with all values between them; from 0 to 1 when there is no value. */
function axisOf(values: readonly number[], pixels: { readonly from: number; readonly to: number }): Axis {
  const [low, high] = values.length === 0 ? [0, 1] : [Math.min(...values), Math.max(...values)];
  const step = roundStep((high - low) / 5 || Math.abs(high) / 5 || 0.2);
  const first = Math.floor(low / step + 1e-9);
  const last = Math.max(first + 1, Math.ceil(high / step - 1e-9));
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const place = (value: number) => pixels.from + (value / step - first) / (last - first) * (pixels.to - pixels.from);
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => {
    const value = (first + i) * step;
    return { at: round(place(value)), label: value.toFixed(decimals) };
  });
  return { ticks, place };
}

/** The next larger of 1, 2 and 5 times a power of ten. */
function roundStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least));
  return power * ([1, 2, 5].find((factor) => factor * power >= least * (1 - 1e-9)) ?? 10);
}

function round(pixels: number): number {
  return Math.round(pixels * 10) / 10;
}

const ENTITIES: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

function escaped(plain: string): string {
  return plain.replace(/[&<>"]/g, (character) => ENTITIES[character] ?? character);
}
