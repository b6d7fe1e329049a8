/** One small plot of the last minutes. */

import type { VNode } from "preact";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { scheme } from "../frame/theme.ts";
import type { Series } from "./group_history.ts";
import { useObserved } from "../frame/use_observed.ts";

const HEIGHT_PX = 80;

interface PlotProps {
  readonly series: Series;
  readonly times: readonly number[];
  readonly values: readonly (readonly number[])[];
}

/** Its newest values stand above it, for those who cannot see the lines. */
export function Plot({ series, times, values }: PlotProps): VNode {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const colours = useObserved(scheme);
  useEffect(() => {
    const element = place.current;
    if (element === null) return;
    plot.current = new uPlot(optionsFor(series, element), dataOf(times, values), element);
    const observer = new ResizeObserver(([entry]) => {
      plot.current?.setSize({ width: Math.floor(entry?.contentRect.width ?? 0), height: HEIGHT_PX });
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.current?.destroy();
    };
  }, [series, colours]);
  useEffect(() => plot.current?.setData(dataOf(times, values)), [times, values]);
  return (
    <figure class="plot">
      <figcaption>
        <span class="name">{series.title}</span>
        {series.lines.map(({ label }, line) => (
          <span key={label} class={`value line-${line}`}>
            {series.lines.length > 1 && `${label} `}
            <strong>{shown(values[line]?.at(-1) ?? 0)}</strong> {series.unit}
          </span>
        ))}
      </figcaption>
      <div ref={place} aria-hidden="true" />
    </figure>
  );
}

function shown(value: number): string {
  return value.toLocaleString("en-US", { maximumFractionDigits: value < 10 ? 1 : 0 });
}

function dataOf(times: readonly number[], values: readonly (readonly number[])[]): uPlot.AlignedData {
  return [[...times], ...values.map((line) => [...line])] as uPlot.AlignedData;
}

function optionsFor({ lines }: Series, element: Element): uPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string) => style.getPropertyValue(`--${name}`).trim();
  const axis: uPlot.Axis = {
    stroke: colour("plot-axis"),
    grid: { stroke: colour("plot-grid"), width: 1 },
    ticks: { show: false },
    font: "10px system-ui",
  };
  return {
    width: Math.max(1, element.clientWidth),
    height: HEIGHT_PX,
    legend: { show: false },
    cursor: { show: false },
    padding: [6, 0, 6, 0],
    scales: { y: { range: (_, __, max) => [0, Math.max(1, max * 1.1)] } },
    axes: [{ show: false }, { ...axis, size: 36 }],
    series: [{}, ...lines.map((_, line) => ({ stroke: colour(`line-${line}`), width: 1.5, points: { show: false } }))],
  };
}
