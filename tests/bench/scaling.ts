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
  copiesFit,
  decodeMs,
  exchangeMs,
  type Link,
  overlappedPrefillMs,
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

/** Where keys and values go, beside 16 GB of weights and 4 GB of working memory: on a card of 141 GB. */
const KV_BYTES = 120e9;

/**
 * H200 through Dawn: dense steps of 1,024 and of 98,304 positions (6.80 and 9.74 ms), a sparse one of 1,024 (7.01), and prompts of
 * 16,384 and 32,768 tokens (9,415 and 8,033 tokens a second), which give the rates of products and of attention.
 */
const H200: Card = {
  denseMs: 6.77,
  sparseMs: 7,
  kvBytesPerMs: 4.34e9,
  productFlopPerMs: 159e9,
  attentionFlopPerMs: 235e9,
  kvBytes: KV_BYTES,
};

/**
 * Two processes of one host: 16 KB out of the GPU in 0.1 ms and into it in 0.03, across and back in 0.04 and with frames in 0.07;
 * 4 MB out of mapped memory, both ways at once and into the GPU in 1.54 ms. Beyond these pieces an exchange of states took 0.15 ms
 * (27.4 ms a dense token of 16,384 positions on copied pages, 16.1 on copies that were whole), one of 512 rows' keys 5.6 (280 ms for 2,048 rows
 * in two batches), and a step 5.2 (12.5 ms for a dense token on copies, where the card alone takes 7.3 with the next step recorded ahead).
 */
const MEASURED: Link = {
  bytesPerMs: 2.7e6,
  hopMs: 0.02,
  messageMs: 0.035,
  readBackMs: 0.1,
  uploadMs: 0.03,
  unexplainedMs: 0.15,
  unexplainedKeysMs: 5.6,
  stepMs: 5.2,
  candidateMs: 3e-5,
};

/** The same, were an exchange no more than its pieces, and steps recorded ahead. */
const PIECES: Link = { ...MEASURED, unexplainedMs: 0, unexplainedKeysMs: 0, stepMs: 0.5 };

/** Nine tenths of a network's rate, and 0.03 ms across it. */
const networkOf = (gigabits: number): Link => ({ ...PIECES, bytesPerMs: 0.9 * gigabits * 1e9 / 8 / 1000, hopMs: 0.03 });

/** Hosts over a network: as now one thread copies all bytes of a worker, and a network that the copying does not slow down. */
const NETWORKS: readonly (readonly [string, Link])[] = [
  ["one thread at 2.7 GB/s", { ...networkOf(25), bytesPerMs: MEASURED.bytesPerMs }],
  ["25 GbE", networkOf(25)],
  ["100 GbE", networkOf(100)],
];

/** Share of a selection that a store of 8 budgets lacks: of the embedded model. */
const MISSING = 0.05;

/** Rows of a chunk for each worker, and the batches that it becomes. */
const [CHUNK_ROWS, BATCHES] = [2048, 4];

type Row = readonly [what: string, measuredMs: number, predictedMs: number];

function step(context: number, workers: number, { sparse = false, copied = false } = {}): number {
  return decodeMs(SHAPE, H200, MEASURED, {
    context,
    workers,
    copied,
    ...(sparse && { sparse: { budget: BUDGET } }),
  });
}

/** What was measured, and what the model makes of it; those that a constant was taken from are left out. */
export function checks(): readonly Row[] {
  const chunkMs = (tokens: number) => prefillMs(SHAPE, H200, MEASURED, { ...ALONE, tokens }).computeMs;
  return [
    ["one H200, dense, 32768", 8.42, step(32768, 1)],
    ["one H200, sparse, 98304", 7.06, step(98304, 1, { sparse: true })],
    ["one H200, 2,048 tokens of a prompt after 98,304", 712, chunkMs(100_352) - chunkMs(98_304)],
    ["two H200, sparse on copies, 16384", 12.23, step(16384, 2, { sparse: true, copied: true })],
    [
      "two H200, prompt of 16384 in chunks of 2,048 and two batches each",
      1000 * 16384 / 6957,
      overlappedPrefillMs(SHAPE, H200, MEASURED, { tokens: 16384, workers: 2, chunk: 2048, batches: 2 }),
    ],
  ];
}

/** What was measured after the model was made: rows that follow programs, and more batches of a prompt at a time. */
function later(): readonly Row[] {
  return [
    ["two H200, dense on copies by programs, 32768", 10.79, step(32768, 2, { copied: true })],
    ["two H200, sparse on copies by programs, 32768", 13.67, step(32768, 2, { sparse: true, copied: true })],
    [
      "two H200, prompt of 32768 in chunks of 4,096 and four batches each",
      1000 * 32768 / 5889,
      overlappedPrefillMs(SHAPE, H200, MEASURED, { tokens: 32768, workers: 2, chunk: 4096, batches: 4 }),
    ],
  ];
}

/** A prompt on one card. */
const ALONE = { workers: 1, chunk: 2048, moves: "keys" } as const;

function table(columns: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  return [columns, columns.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`);
}

function checkTable(compared: readonly Row[]): readonly string[] {
  return table(
    ["measured", "ms", "predicted ms", "error"],
    compared.map(([what, measured, predicted]) => {
      const error = 100 * (predicted / measured - 1);
      return [what, measured.toFixed(2), predicted.toFixed(2), `${error > 0 ? "+" : ""}${error.toFixed(1)} %`];
    }),
  );
}

function hostTable(link: Link): readonly string[] {
  const rows = [32768, 98304, 1_000_000].flatMap((context) =>
    [1, 2, 4].map((workers) => {
      const load = { context, workers };
      const step = (more: Partial<Parameters<typeof decodeMs>[3]> = {}) =>
        decodeMs(SHAPE, H200, link, { ...load, ...more }).toFixed(1);
      const sparse = { budget: BUDGET };
      const chunk = CHUNK_ROWS * workers;
      const { computeMs, linkMs } = prefillMs(SHAPE, H200, link, { tokens: context, workers, chunk, moves: "queries" });
      const overlapped = overlappedPrefillMs(SHAPE, H200, link, { tokens: context, workers, chunk, batches: BATCHES });
      const isCopied = workers > 1 && copiesFit(SHAPE, H200, load);
      return [
        `${context}`,
        `${workers}`,
        cardsFor(SHAPE, H200, context) <= workers ? "yes" : "no",
        isCopied ? step({ copied: true }) : "–",
        step(),
        isCopied ? step({ sparse, copied: true }) : "–",
        step({ sparse }),
        step({ sparse: { ...sparse, missing: MISSING } }),
        (overlapped / 1000).toFixed(1),
        `${(computeMs / 1000).toFixed(1)} + ${(linkMs / 1000).toFixed(1)}`,
      ];
    })
  );
  const columns = ["context", "workers", "fits", "dense on copies ms", "dense by states ms"];
  const sparse = ["sparse on copies ms", "sparse by states ms", "sparse by rows ms"];
  return table([...columns, ...sparse, "prompt s, keys travel", "prompt s, queries travel"], rows);
}

function networkTable(): readonly string[] {
  const rows = [1e6, 1e7].flatMap((context) =>
    NETWORKS.flatMap(([name, link]) =>
      [16, 32, 64].map((workers) => {
        const fits = cardsFor(SHAPE, H200, context) <= workers ? "yes" : "no";
        const dense = decodeMs(SHAPE, H200, link, { context, workers });
        const sparse = decodeMs(SHAPE, H200, link, { context, workers, sparse: { budget: BUDGET, missing: MISSING } });
        const [exchange, select] = [
          exchangeMs(SHAPE, link, workers),
          selectMs(SHAPE, link, { workers, budget: BUDGET }),
        ];
        const prompts = (["queries", "keys"] as const).map((moves) => {
          const { computeMs, linkMs } = prefillMs(SHAPE, H200, link, {
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
    ["The model beside measurements", checkTable(checks())],
    ["Beside what was measured later", checkTable(later())],
    ["One host of H200, as it was measured", hostTable(MEASURED)],
    ["One host of H200, exchanges that are the sum of their pieces", hostTable(PIECES)],
    ["Many hosts, an exchange that is the sum of its pieces", networkTable()],
  ];
  for (const [title, lines] of parts) for (const line of [title, "", ...lines, ""]) terminal.line(line);
}
