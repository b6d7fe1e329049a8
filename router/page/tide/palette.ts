/** The colours of the strip, from the style sheet: they change with light and dark. */

import type { Palette } from "./strip.ts";

/** Reads the colours as they are now. */
export function paletteOf(element: Element): Palette {
  const style = getComputedStyle(element);
  const colour = (name: string) => parse(style.getPropertyValue(`--strip-${name}`).trim());
  return {
    ground: colour("ground"),
    low: colour("low"),
    high: colour("high"),
    forced: colour("forced"),
    workers: [0, 1, 2, 3].map((worker) => parse(style.getPropertyValue(`--worker-${worker}`).trim())),
  };
}

/** @param hex as `#rrggbb` */
function parse(hex: string): readonly [number, number, number] {
  const value = Number.parseInt(hex.slice(1), 16);
  return [value >> 16 & 255, value >> 8 & 255, value & 255];
}
