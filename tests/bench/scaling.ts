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
  dealtPrefillMs,
  decodeMs,
  exchangeMs,
  type Link,
  prefillMs,
  selectMs,
  type Shape,
} from "./scaling_model.ts";
import { markdownTable } from "../../router/commands/markdown_table.ts";

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
 * H200 through Dawn, one run: dense steps of 1,024 and of 98,304 positions (5.48 and 9.96 ms), a sparse one of 1,024 (5.37), and prompts
 * of 4,096 and 98,304 tokens (14,388 and 5,537 a second), which give the rates of products and of attention.
 */
const H200: Card = {
  denseMs: 5.43,
  sparseMs: 5.33,
  kvBytesPerMs: 2.85e9,
  productFlopPerMs: 216e9,
  attentionFlopPerMs: 222e9,
  kvBytes: KV_BYTES,
};

/**
 * Two processes of one host: 16 KB out of the GPU in 0.1 ms and into it in 0.03, across and back in 0.04 and with frames in 0.07;
 * 4 MB out of mapped memory, both ways at once and into the GPU in 1.54 ms. Beyond these pieces an exchange of states took 0.15 ms
 * (27.4 ms a dense token of 16,384 positions on copied pages, 16.1 on copies that were whole), and a step 5.2 (12.5 ms for a dense token
 * that both computed, where the card alone takes 7.3 with the next step recorded ahead). Keys and values of a prompt through sockets: 350 ms
 * a step of 4,096 tokens at any position, one thread's work; queries and states: 6.9 s a step after some 45,000 positions. Rows that the
 * lead computed for two: 8.24 and 8.48 ms where its card alone takes 7.23 and 5.78 (dense and sparse, 32,768 positions).
 */
const MEASURED: Link = {
  bytesPerMs: 2.7e6,
  hopMs: 0.02,
  messageMs: 0.035,
  readBackMs: 0.1,
  uploadMs: 0.03,
  unexplainedMs: 0.15,
  keyBytesPerMs: 1.5e6,
  queryBytesPerMs: 0.33e6,
  stepMs: 5.2,
  leadMs: 1,
  leadSparseMs: 2.7,
  candidateMs: 3e-5,
};

/** Of a prompt, measured by themselves (an H200, two processes): 8 MB out of the GPU, through sockets both ways, and into the GPU. */
const [OUT_MS, SOCKETS_MS, IN_MS, PIECE_BYTES] = [2.4, 3.6, 1.0, 8 * 2 ** 20];

/** What one thread that did all of it took for a message of 8 MB, in or out: 350 ms for 64. */
const MESSAGE_MS = 5.5;

/**
 * Predicted, not measured: the same with lanes. Of keys and values the sockets' part is taken off the thread. Queries and states, out, across
 * and in one after the other, take as much longer than their pieces as keys and values did.
 */
const LANES: Link = {
  ...MEASURED,
  keyBytesPerMs: PIECE_BYTES / (MESSAGE_MS - SOCKETS_MS / 2),
  queryBytesPerMs: PIECE_BYTES / (2 * MESSAGE_MS),
};

/** The same as measured, were all of it no more than its pieces: with lanes the slower of two threads counts. */
const PIECES: Link = {
  ...MEASURED,
  unexplainedMs: 0,
  keyBytesPerMs: 2 * PIECE_BYTES / Math.max(OUT_MS + IN_MS, SOCKETS_MS),
  queryBytesPerMs: MEASURED.bytesPerMs,
  stepMs: 0.5,
};

/** Nine tenths of a network's rate, and 0.03 ms across it. */
function networkOf(gigabits: number): Link {
  const bytesPerMs = 0.9 * gigabits * 1e9 / 8 / 1000;
  const ofThread = Math.min(bytesPerMs, MEASURED.bytesPerMs);
  return { ...PIECES, bytesPerMs, keyBytesPerMs: ofThread, queryBytesPerMs: bytesPerMs, hopMs: 0.03 };
}

/** Hosts over a network: as now one thread copies all bytes of a worker, and a network that the copying does not slow down. */
const NETWORKS: readonly (readonly [string, Link])[] = [
  ["one thread at 2.7 GB/s", {
    ...networkOf(25),
    bytesPerMs: MEASURED.bytesPerMs,
    queryBytesPerMs: MEASURED.bytesPerMs,
  }],
  ["25 GbE", networkOf(25)],
  ["100 GbE", networkOf(100)],
];

/** Share of a selection that a store of 8 budgets lacks: of the embedded model. */
const MISSING = 0.05;

/** Rows of a chunk, of which each worker has one in a step. */
const CHUNK_ROWS = 2048;

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
  const dealt = { tokens: 32768, chunk: 4096, workers: 2 };
  return [
    ["one H200, dense, 32768", 7.27, step(32768, 1)],
    ["one H200, sparse, 32768", 5.79, step(32768, 1, { sparse: true })],
    ["one H200, sparse, 98304", 6.36, step(98304, 1, { sparse: true })],
    [
      "one H200, prompt of 32768",
      1000 * 32768 / 9714,
      prefillMs(SHAPE, H200, MEASURED, { ...ALONE, tokens: 32768 }).computeMs,
    ],
    [
      "two H200, prompt of 32768 in steps of 4,096",
      1000 * 32768 / 10597,
      dealtPrefillMs(SHAPE, H200, MEASURED, dealt),
    ],
  ];
}

/** A prompt on one card. */
const ALONE = { workers: 1, chunk: 2048, moves: "keys" } as const;

function checkTable(compared: readonly Row[]): readonly string[] {
  return markdownTable(
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
      const dealt = dealtPrefillMs(SHAPE, H200, link, { tokens: context, workers, chunk });
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
        (dealt / 1000).toFixed(1),
        `${(computeMs / 1000).toFixed(1)} + ${(linkMs / 1000).toFixed(1)}`,
      ];
    })
  );
  const columns = ["context", "workers", "fits", "dense on copies ms", "dense by states ms"];
  const sparse = ["sparse on copies ms", "sparse by states ms", "sparse by rows ms"];
  return markdownTable([...columns, ...sparse, "prompt s, keys travel", "prompt s, queries travel"], rows);
}

/** Prompts with the links as they were measured, and as they are predicted to be with lanes. */
function promptTable(): readonly string[] {
  const seconds = (ms: number) => (ms / 1000).toFixed(1);
  const rows = [32768, 98304].flatMap((tokens) => {
    const { computeMs: aloneMs } = prefillMs(SHAPE, H200, MEASURED, { ...ALONE, tokens });
    return [2, 4].map((workers) => {
      const load = { tokens, workers, chunk: CHUNK_ROWS * workers };
      const [before, lanes, pieces] = [MEASURED, LANES, PIECES].map((link) => dealtPrefillMs(SHAPE, H200, link, load));
      const queries = [MEASURED, LANES].map((link) => {
        const { computeMs, linkMs } = prefillMs(SHAPE, H200, link, { ...load, moves: "queries" });
        return seconds(computeMs + linkMs);
      });
      const dealt = [before, lanes, pieces].map((ms = NaN) => `${seconds(ms)} (${(aloneMs / ms).toFixed(2)})`);
      return [`${tokens}`, `${workers}`, seconds(aloneMs), ...dealt, ...queries];
    });
  });
  const columns = ["tokens", "workers", "one card s", "keys s (times one card)", "with lanes", "by pieces"];
  return markdownTable([...columns, "queries s", "with lanes"], rows);
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
  return markdownTable([...columns, "one choice ms", "prompt min, queries travel", "prompt min, keys travel"], rows);
}

if (import.meta.main) {
  const terminal = processTerminal();
  const parts: readonly (readonly [string, readonly string[]])[] = [
    ["The model beside measurements", checkTable(checks())],
    ["One host of H200, as it was measured", hostTable(MEASURED)],
    ["One host of H200, all of it the sum of its pieces", hostTable(PIECES)],
    ["Prompts on one host, before lanes and as predicted with them", promptTable()],
    ["Many hosts, an exchange that is the sum of its pieces", networkTable()],
  ];
  for (const [title, lines] of parts) for (const line of [title, "", ...lines, ""]) terminal.line(line);
}
