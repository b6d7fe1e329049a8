/** Charts as SVG text: their structure, where points land, and what is escaped. */

import assert from "node:assert/strict";
import { linePlot } from "../../../../router/commands/eval/line_plot.ts";

const PANEL = { title: "Panel", xLabel: "x", yLabel: "y" };

/** Labels of the ticks along the left side, or below. */
function ticks(svg: string, anchor: "end" | "middle"): string[] {
  return [...svg.matchAll(/<text x="\S+" y="\S+" text-anchor="(\w+)">(-?[\d.]+)<\/text>/g)]
    .flatMap(([, found, label = ""]) => (found === anchor ? label : []));
}

function plotOf(points: (readonly [number, number])[]): string {
  const lines = [{ name: "a", colour: "#123456" }];
  return linePlot({ title: "T", lines, panels: [{ ...PANEL, points: [points] }] });
}

Deno.test("linePlot() gives two panels on a white background over one legend", () => {
  const svg = linePlot({
    title: "Two panels",
    lines: [{ name: "solid", colour: "#000000" }, { name: "dashed", colour: "#ff0000", dashes: "5 4" }],
    panels: [
      { title: "Left", xLabel: "tokens", yLabel: "%", points: [[[0, 0], [10, 100]], [[0, 50], [10, 50]]] },
      { title: "Right", xLabel: "tokens", yLabel: "perplexity", points: [[[0, 20], [10, 30]]] },
    ],
  });
  const outline = svg.trimEnd().split("\n").map((line) => line.trim())
    .filter((line) => !line.includes("#e4e4e4") && !/^<text[^>]*>[\d.]+</.test(line));
  assert.deepEqual(outline, [
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 880 380" width="880" height="380" role="img" ' +
    'font-family="sans-serif" font-size="12" fill="#222222">',
    "<title>Two panels</title>",
    '<rect width="880" height="380" fill="#ffffff"/>',
    '<g transform="translate(64 34)">',
    '<text x="180" y="-14" text-anchor="middle" font-weight="bold">Left</text>',
    '<path d="M0 0V260H360" fill="none" stroke="#222222"/>',
    '<text x="180" y="298" text-anchor="middle">tokens</text>',
    '<text x="-130" y="-48" text-anchor="middle" transform="rotate(-90)">%</text>',
    '<polyline points="0,260 360,0" fill="none" stroke="#000000" stroke-width="2"/>',
    '<polyline points="0,130 360,130" fill="none" stroke="#ff0000" stroke-width="2" stroke-dasharray="5 4"/>',
    "</g>",
    '<g transform="translate(504 34)">',
    '<text x="180" y="-14" text-anchor="middle" font-weight="bold">Right</text>',
    '<path d="M0 0V260H360" fill="none" stroke="#222222"/>',
    '<text x="180" y="298" text-anchor="middle">tokens</text>',
    '<text x="-130" y="-48" text-anchor="middle" transform="rotate(-90)">perplexity</text>',
    '<polyline points="0,260 360,0" fill="none" stroke="#000000" stroke-width="2"/>',
    "</g>",
    '<line x1="64" y1="360" x2="94" y2="360" stroke="#000000" stroke-width="2"/>' +
    '<text x="102" y="364" text-anchor="start">solid</text>',
    '<line x1="279" y1="360" x2="309" y2="360" stroke="#ff0000" stroke-width="2" stroke-dasharray="5 4"/>' +
    '<text x="317" y="364" text-anchor="start">dashed</text>',
    "</svg>",
  ]);
});

Deno.test("linePlot() has ticks at round numbers around all values", () => {
  const svg = plotOf([[125, 0.742], [1875, 0.918]]);
  assert.deepEqual(ticks(svg, "middle"), ["0", "500", "1000", "1500", "2000"]);
  assert.deepEqual(ticks(svg, "end"), ["0.70", "0.75", "0.80", "0.85", "0.90", "0.95"]);
  assert.match(svg, /points="22\.5,216\.3 337\.5,33\.3"/);
});

Deno.test("linePlot() draws one value, equal values, negative ones, and none at all", () => {
  for (const points of [[[3, 100]], [[0, 0], [1, 0]], [[-5, -0.25], [5, 0.25]], []] as [number, number][][]) {
    const svg = plotOf(points);
    assert.doesNotMatch(svg, /NaN|Infinity/);
    assert.ok(ticks(svg, "end").length >= 2 && ticks(svg, "middle").length >= 2);
    assert.equal(svg.includes("<polyline"), points.length > 0);
  }
});

Deno.test("linePlot() escapes every text it is given", () => {
  const panel = { title: "<t>", xLabel: "x & y", yLabel: "<y>", points: [] };
  const svg = linePlot({ title: 'a "b"', lines: [{ name: "</svg>", colour: '"/>', dashes: '"' }], panels: [panel] });
  for (const raw of ["<t>", "x & y", "<y>", 'a "b"', '""']) assert.ok(!svg.includes(raw), raw);
  for (const safe of ["&lt;t&gt;", "x &amp; y", "a &quot;b&quot;", ">&lt;/svg&gt;<"]) {
    assert.ok(svg.includes(safe), safe);
  }
  assert.equal(svg.split("</svg>").length, 2);
});
