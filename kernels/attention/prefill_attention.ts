/**
 * Causal attention of many consecutive rows of one sequence to its pages (prefill), without materialised scores: tiles of
 * query rows walk over blocks of KV rows. Blocks lie at fixed multiples and hidden rows change no bit, so a row's bits do
 * not depend on how a prompt is cut into chunks. Knows rows and pages; knows nothing of layers or chunks.
 */

import { matrixTileWgsl } from "./tile/matrix_tile.ts";
import { matrixTileFor, matrixTileName, matrixTileTokens } from "./tile/matrix_tile_plan.ts";
import { hardwareTileWgsl } from "./tile/hardware_tile.ts";
import { hardwareTileFor, hardwareTileTokens } from "./tile/hardware_tile_plan.ts";
import { type SoftwareTile, softwareTileTokens, softwareTileWgsl, TILE_LANES } from "./tile/software_tile.ts";
import { GpuError } from "../errors.ts";
import {
  type AttentionState,
  expectHeadShape,
  expectPagedKv,
  type HeadShape,
  PAGED_KV_BINDINGS,
  type PagedKv,
  STATE_BINDINGS,
  stateBindings,
} from "./kv_pages.ts";
import type { BindingSpec, Commands, Kernel, KernelSpec } from "../pipeline.ts";
import { ROW_WORDS } from "./row_table.ts";
import { expectRows, ROW_FORMS, type RowForm } from "../rows.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { type Tuning, tuningFor } from "./tuning.ts";
import { reads } from "../wgsl.ts";

/** What `prefillAttention` reads and writes. */
export interface PrefillAttention extends PagedKv {
  readonly shape: HeadShape;
  /** First row of the call in q, out and the row table; its rows are consecutive in position. */
  readonly firstRow: number;
  readonly rows: number;
  /**
   * f32 `[all rows, heads, headDim]`, rotated, not scaled. Or f16 as `halfQueriesShape` says, rotated and scaled: then the
   * matrix tile computes the call.
   */
  readonly q: Tensor;
  /** u32 `[all rows, 8]`, see `row_table.ts`; kvFrom and kvLimit never fall from row to row. */
  readonly rowTable: Tensor;
  /** Usually 1/√headDim. */
  readonly scale: number;
  /** o `[all rows, heads, headDim]`, lse f32 `[all rows, heads]`. */
  readonly out: AttentionState;
  /** Of `out.o`, as in `Rows`: f32, or halves, which matrix tiles alone write. @default "f32" */
  readonly outForm?: RowForm;
  /** Of f32 queries. @default what suits the adapter */
  readonly tuning?: Tuning;
}

/** Query values that one lane of the software kernel keeps. */
const LANE_VALUES = 256;
const MAX_ROWS_PER_LANE = 8;

/**
 * Attends consecutive rows of one sequence, each to [kvFrom, kvLimit) of its sequence, and writes their states.
 * @throws {GpuError} `invalid_shape`
 */
export function prefillAttention(commands: Commands, args: PrefillAttention): void {
  const { shape, firstRow, rows, q, kv, pageTable, maxPages, rowTable, scale, out, outForm = "f32" } = args;
  const op = "attention_tile";
  const all = firstRow + rows;
  expectHeadShape(op, shape);
  expectTensor(op, q, q.dtype === "f16" ? "f16" : "f32", [all, shape.heads, shape.headDim]);
  expectTensor(op, rowTable, "u32", [all, ROW_WORDS]);
  const forms: readonly RowForm[] = q.dtype === "f16" ? ROW_FORMS : ["f32"];
  expectRows(op, { tensor: out.o, form: outForm }, { rows: all, cols: shape.heads * shape.headDim, forms });
  expectTensor(op, out.lse, "f32", [all, shape.heads]);
  expectPagedKv(op, shape, args);
  if (q.dtype === "f16") {
    byMatrices(commands, { ...args, outForm });
    return;
  }
  const tuning = tuningFor(commands.gpu.info, args.tuning);
  const { kernel, tokens } = tuning === "software" ? software(commands, shape) : hardware(commands, shape);
  commands.dispatch(kernel, {
    tensors: [q, kv.k, kv.v, pageTable, rowTable, out.o, out.lse],
    params: { firstRow, rows, maxPages, scale },
    groups: [Math.ceil(rows / tokens), shape.kvHeads, 1],
  });
}

function byMatrices(commands: Commands, args: PrefillAttention & { readonly outForm: RowForm }): void {
  const { shape, firstRow, rows, q, kv, pageTable, maxPages, rowTable, out, outForm } = args;
  const chosen = matrixTileFor(commands.gpu.info, shape);
  if (chosen === undefined) {
    throw new GpuError(
      "invalid_shape",
      `Cannot dispatch attention_tile of f16 queries: no matrix tile takes heads of ${shape.headDim}`,
    );
  }
  const tile = { ...chosen, outForm };
  const kernel = commands.kernel(matrixTileName(tile), () => ({
    needs: ["f16", "matrix"],
    bindings: [reads("q", "array<vec4<u32>>"), ...PAGED_KV_BINDINGS, ...stateBindings(outForm)],
    params: ["firstRow", "rows", "queryRows", "maxPages"].map((name) => [name, "u32"]),
    source: matrixTileWgsl(tile),
  }));
  commands.dispatch(kernel, {
    tensors: [q, kv.k, kv.v, pageTable, rowTable, out.o, out.lse],
    params: {
      firstRow,
      rows,
      queryRows: q.shape[1] ?? 0,
      maxPages,
    },
    groups: [Math.ceil(rows / matrixTileTokens(tile)), shape.kvHeads, 1],
  });
}

/** A kernel, and the tokens that one of its workgroups takes. */
interface Tile {
  readonly kernel: Kernel;
  readonly tokens: number;
}

function software(commands: Commands, shape: HeadShape): Tile {
  const { subgroups } = commands.gpu.info;
  const options: SoftwareTile = {
    ...shape,
    // A tile holds all heads of a token's group, even where that takes more than the lanes keep best.
    rowsPerLane: Math.max(
      Math.ceil(shape.heads / shape.kvHeads / TILE_LANES),
      Math.min(MAX_ROWS_PER_LANE, Math.max(1, Math.floor(LANE_VALUES / shape.headDim))),
    ),
    broadcast: subgroups && commands.gpu.device.adapterInfo.subgroupMinSize >= TILE_LANES,
  };
  const name = `attention_tile software ${Object.values(options)}`;
  return {
    kernel: commands.kernel(name, () => ({
      ...specOf(softwareTileWgsl(options)),
      ...(options.broadcast && { needs: ["subgroups"] }),
    })),
    tokens: softwareTileTokens(options),
  };
}

function hardware(commands: Commands, shape: HeadShape): Tile {
  const options = hardwareTileFor(commands.gpu.info.maxWorkgroupBytes, shape);
  if (options === undefined) {
    throw new GpuError(
      "invalid_shape",
      `Cannot dispatch attention_tile: heads of ${shape.headDim} exceed ${commands.gpu.info.maxWorkgroupBytes} bytes ` +
        "of workgroup memory",
    );
  }
  const name = `attention_tile hardware ${Object.values(options)}`;
  return {
    kernel: commands.kernel(name, () => specOf(hardwareTileWgsl(options))),
    tokens: hardwareTileTokens(options),
  };
}

const KV_AND_OUTPUTS: readonly BindingSpec[] = [...PAGED_KV_BINDINGS, ...STATE_BINDINGS];

function specOf(source: string): KernelSpec {
  return {
    bindings: [reads("q", "array<vec4<f32>>"), ...KV_AND_OUTPUTS],
    params: [["firstRow", "u32"], ["rows", "u32"], ["maxPages", "u32"], ["scale", "f32"]],
    source,
  };
}
