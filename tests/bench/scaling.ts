/**
 * `deno task scaling`: what a group of a Llama-3-8B shape takes by the model of cost, beside what was measured, and what 16 to 64
 * workers would do. The constants stand here with their sources; `docs/scaling.md` shows what this prints and what follows.
 */

import { presetNamed } from "../../engine/model/presets.ts";
import { layerRoles, sparseLayersAfter } from "../../engine/layer_plan.ts";
import { processTerminal } from "../../router/terminal.ts";
import {
  type Card,
  cardsFor,
  decodeMs,
  exchangeMs,
  type Link,
  prefillMs,
  selectMs,
  type Shape,
} from "./scaling_model.ts";

const { config } = presetNamed("llama-3-8b");
const SELECT_LAYERS = [2, 13];
const roles = layerRoles(config.layers, SELECT_LAYERS);
const sparseLayers = SELECT_LAYERS.reduce((sum, layer) => sum + sparseLayersAfter(roles, layer), 0);

/** Llama-3-8B: 28 of 32 layers are sparse. */
export const SHAPE: Shape = { config, wholeLayers: config.layers - sparseLayers, selectLayers: SELECT_LAYERS.length };

const BUDGET = 512;

/** Where keys and values go, beside 16 GB of weights and 4 GB of working memory: on a card of 80 GB. */
const KV_BYTES = 60e9;

/** Of the kernels' rates alone, what a prompt of 32,768 tokens reached as a whole. */
const PROMPT_SHARE = 0.803;

/**
 * H100 through Deno's WebGPU: a dense step of 1,024 and one of 32,768 positions (7.74 and 9.80 ms). Operations through Dawn: the
 * kernels' rates alone, weighted by what they compute, times the share above.
 */
const H100: Card = {
  denseMs: 7.67,
  sparseMs: 7.75,
  kvBytesPerMs: 2.02e9,
  productFlopPerMs: PROMPT_SHARE * 239e9,
  attentionFlopPerMs: PROMPT_SHARE * 182e9,
  kvBytes: KV_BYTES,
};

/** The same card through Dawn: the steps of 4,096 positions (10.75 ms dense, 8.35 sparse). */
const H100_DAWN: Card = { ...H100, denseMs: 10.48, sparseMs: 8.29 };

/** H200 through Deno's WebGPU: the steps of 8,192 positions (6.5 ms). */
const H200: Card = { ...H100, denseMs: 5.97, sparseMs: 6.43 };

/**
 * Two processes of one host: 16 KB out of the GPU in 0.07 ms and into it in 0.03, across and back in 0.04 and with frames in 0.07;
 * 8 MB both ways at once at 1.08 GB/s. An exchange takes 0.89 ms a layer on two H200, 0.68 more than these pieces.
 */
const MEASURED: Link = {
  bytesPerMs: 1.08e6,
  hopMs: 0.02,
  messageMs: 0.035,
  readBackMs: 0.07,
  uploadMs: 0.03,
  unexplainedMs: 0.68,
  candidateMs: 3e-5,
};

/** The same, were an exchange no more than its pieces. */
const PIECES: Link = { ...MEASURED, unexplainedMs: 0 };

/** Nine tenths of a network's rate, and 0.03 ms across it. */
const networkOf = (gigabits: number): Link => ({ ...PIECES, bytesPerMs: 0.9 * gigabits * 1e9 / 8 / 1000, hopMs: 0.03 });

/** Hosts over a network: as now one thread copies all bytes of a worker, and a network that the copying does not slow down. */
const NETWORKS: readonly (readonly [string, Link])[] = [
  ["one thread at 1.08 GB/s", { ...networkOf(25), bytesPerMs: MEASURED.bytesPerMs }],
  ["25 GbE", networkOf(25)],
  ["100 GbE", networkOf(100)],
];

/** Share of a selection that a store of 8 budgets lacks: of the embedded model, and of random weights. */
const [MISSING, MISSING_RANDOM] = [0.05, 0.62];

type Row = readonly [what: string, measuredMs: number, predictedMs: number];

/** What was measured, and what the model makes of it; those that a constant was taken from are left out. */
export function checks(): readonly Row[] {
  const one = (context: number, attention: "dense" | "sparse" = "dense") => ({
    context,
    workers: 1,
    ...(attention === "sparse" && { sparse: { budget: BUDGET } }),
  });
  const step = (card: Card, load: ReturnType<typeof one>) => decodeMs(SHAPE, card, MEASURED, load);
  const prompt = (tokens: number) =>
    prefillMs(SHAPE, H100, MEASURED, { tokens, workers: 1, chunk: 2048, moves: "queries" });
  const two = { context: 8192, workers: 2 };
  return [
    ["H100, Deno, sparse, 32768", 8.25, step(H100, one(32768, "sparse"))],
    ["H100, Dawn, dense, 32768", 12.54, step(H100_DAWN, one(32768))],
    ["H100, Dawn, dense, 98304", 16.98, step(H100_DAWN, one(98304))],
    ["H100, Dawn, sparse, 32768", 8.38, step(H100_DAWN, one(32768, "sparse"))],
    ["H100, Dawn, sparse, 98304", 8.88, step(H100_DAWN, one(98304, "sparse"))],
    ["H100, Dawn, prompt of 98304", 1000 * 98304 / 4282, prompt(98304).computeMs],
    ["two H200, dense, 8192", 44.8, decodeMs(SHAPE, H200, MEASURED, two)],
    [
      "two H200, sparse by rows, 62 % missing, 8192",
      58.0,
      decodeMs(SHAPE, H200, MEASURED, { ...two, sparse: { budget: BUDGET, missing: MISSING_RANDOM } }),
    ],
  ];
}

function table(columns: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  return [columns, columns.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`);
}

function checkTable(): readonly string[] {
  return table(
    ["measured", "ms", "predicted ms", "error"],
    checks().map(([what, measured, predicted]) => {
      const error = 100 * (predicted / measured - 1);
      return [what, measured.toFixed(2), predicted.toFixed(2), `${error > 0 ? "+" : ""}${error.toFixed(1)} %`];
    }),
  );
}

function hostTable(link: Link): readonly string[] {
  const rows = [32768, 98304, 1_000_000].flatMap((context) =>
    [1, 2, 4].map((workers) => {
      const load = { context, workers };
      const step = (sparse?: { budget: number; missing?: number }) =>
        decodeMs(SHAPE, H100, link, { ...load, ...(sparse && { sparse }) }).toFixed(1);
      const prompt = (moves: "queries" | "keys") => {
        const { computeMs, linkMs } = prefillMs(SHAPE, H100, link, { tokens: context, workers, chunk: 2048, moves });
        return `${(computeMs / 1000).toFixed(1)} + ${(linkMs / 1000).toFixed(1)}`;
      };
      const fits = cardsFor(SHAPE, H100, context) <= workers ? "yes" : "no";
      const sparse = [step(), step({ budget: BUDGET }), step({ budget: BUDGET, missing: MISSING })];
      return [`${context}`, `${workers}`, fits, ...sparse, prompt("queries"), prompt("keys")];
    })
  );
  const columns = ["context", "workers", "fits", "dense ms", "sparse by states ms", "sparse by rows ms"];
  return table([...columns, "prompt s, queries travel", "prompt s, keys travel"], rows);
}

function networkTable(): readonly string[] {
  const rows = [1e6, 1e7].flatMap((context) =>
    NETWORKS.flatMap(([name, link]) =>
      [16, 32, 64].map((workers) => {
        const fits = cardsFor(SHAPE, H100, context) <= workers ? "yes" : "no";
        const dense = decodeMs(SHAPE, H100, link, { context, workers });
        const sparse = decodeMs(SHAPE, H100, link, { context, workers, sparse: { budget: BUDGET, missing: MISSING } });
        const [exchange, select] = [
          exchangeMs(SHAPE, link, workers),
          selectMs(SHAPE, link, { workers, budget: BUDGET }),
        ];
        const prompts = (["queries", "keys"] as const).map((moves) => {
          const { computeMs, linkMs } = prefillMs(SHAPE, H100, link, {
            tokens: context,
            workers,
            chunk: 2048 * workers,
            moves,
          });
          return `${(computeMs / 60_000).toFixed(1)} + ${(linkMs / 60_000).toFixed(1)}`;
        });
        const figures = [dense, sparse, exchange, select].map((ms) => ms.toFixed(1));
        return [`${context}`, name, `${workers}`, fits, ...figures, ...prompts];
      })
    )
  );
  const columns = ["context", "network", "workers", "fits", "dense ms", "sparse by rows ms", "one exchange ms"];
  return table([...columns, "one choice ms", "prompt min, queries travel", "prompt min, keys travel"], rows);
}

if (import.meta.main) {
  const terminal = processTerminal();
  const parts: readonly (readonly [string, readonly string[]])[] = [
    ["The model beside measurements", checkTable()],
    ["One host of H100, an exchange as it was measured", hostTable(MEASURED)],
    ["One host of H100, an exchange that is the sum of its pieces", hostTable(PIECES)],
    ["Many hosts, an exchange that is the sum of its pieces", networkTable()],
  ];
  for (const [title, lines] of parts) for (const line of [title, "", ...lines, ""]) terminal.line(line);
}
