/** Scores of rows whose next token is known: its log-probability, and the token of the highest logit. */

import { tokenScores } from "../../kernels/logits/token_scores.ts";
import { f32Of, u32Of } from "../../kernels/read_back.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { ProductFamily, ScoredRow } from "../row_batch.ts";
import { copyRows, headLogits, LOGIT_ROWS } from "./head.ts";

/** Log-probability and argmax of scored rows, in their order. */
export interface RowScores {
  readonly logprob: Float32Array;
  readonly argmax: Uint32Array;
}

/**
 * Scores rows against the tokens that follow them; waits for the GPU.
 * @param x f32 [≥ rows, hidden]: the residual rows of a batch
 * @param input.rows those of the batch that are scored
 * @param input.product the family of the batch
 */
export async function score(
  model: LoadedModel,
  x: Tensor,
  { rows, product }: {
    readonly rows: readonly Pick<ScoredRow, "row" | "target">[];
    readonly product: ProductFamily;
  },
): Promise<RowScores> {
  const { commands, scratch, config } = model;
  const logprob = new Float32Array(rows.length);
  const argmax = new Uint32Array(rows.length);
  for (let first = 0; first < rows.length; first += LOGIT_ROWS) {
    const block = rows.slice(first, first + LOGIT_ROWS);
    const gathered = scratch.take("scored rows", "f32", [LOGIT_ROWS, config.hidden]);
    copyRows(model, { from: x, to: gathered, rows: block.map(({ row }) => row) });
    const logits = headLogits(model, { x: gathered, rows: block.length, product, name: "scored logits" });
    const targets = scratch.take("targets", "u32", [LOGIT_ROWS]);
    const scores = scratch.take("token scores", "f32", [LOGIT_ROWS, 2]);
    const best = scratch.take("best tokens", "u32", [LOGIT_ROWS]);
    commands.write(targets, Uint32Array.from(block, ({ target }) => target));
    tokenScores(commands, { logits, targets, scores, best, rows: block.length, vocabulary: config.vocabSize });
    commands.submit();
    const [scoreBytes, bestBytes] = await commands.gpu.read([
      { tensor: scores, byteLength: block.length * 8 },
      { tensor: best, byteLength: block.length * 4 },
    ]);
    const pairs = f32Of(scoreBytes);
    for (let i = 0; i < block.length; i++) logprob[first + i] = pairs[2 * i] ?? NaN;
    argmax.set(u32Of(bestBytes), first);
  }
  return { logprob, argmax };
}
