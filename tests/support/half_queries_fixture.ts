/** Queries for the matrix tiles of tests. */

import { halfQueries, halfQueriesShape } from "../../kernels/attention/half_queries.ts";
import type { HeadShape } from "../../kernels/attention/kv_pages.ts";
import type { Commands } from "../../kernels/pipeline.ts";
import type { Tensor } from "../../kernels/tensor.ts";

/** What is made of f32 queries of `rows` rows. */
export interface QueriesOf {
  readonly shape: HeadShape;
  readonly rows: number;
  readonly q: Tensor;
  readonly attendedBy: "chunk" | "row";
  readonly make: (dtype: "f16", shape: readonly number[]) => Tensor;
}

/**
 * The queries as matrix tiles read them, scaled by 1 / √headDim.
 * @throws {Error} when the adapter has no matrix tiles for these heads
 */
export function halvesOf(commands: Commands, { shape, rows, q, attendedBy, make }: QueriesOf): Tensor {
  const sizes = halfQueriesShape(commands.gpu.info, shape, { rows, attendedBy });
  if (sizes === undefined) throw new Error(`Cannot halve queries: no matrix tile here takes heads of ${shape.headDim}`);
  const out = make("f16", sizes);
  halfQueries(commands, { shape, rows, q, scale: 1 / Math.sqrt(shape.headDim), out });
  return out;
}
