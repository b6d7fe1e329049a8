/** The layer loop, as the paper has it: residual rows in, residual rows out, keys and values appended to the slice. */

import { carryTokens } from "../../kernels/logits/carry_tokens.ts";
import { embed } from "../../kernels/products/embed.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { drawnTokens } from "../logits/drawn_tokens.ts";
import { addOutput, attendAll, project } from "./attention.ts";
import type { Pass, PassLayer } from "./pass.ts";
import { multiplyGated } from "./products.ts";
import { beginSelection } from "./selection.ts";

/**
 * Runs a batch through all layers. In a group the states of a layer arrive while what follows them is recorded, up to the next
 * place where something is submitted.
 * @param afterLayer called after each of them
 * @returns the residual rows that this worker computes, before the final norm, f32 [computed, hidden]
 */
export async function forward(pass: Pass, afterLayer: (layer: PassLayer) => Promise<void> | void): Promise<Tensor> {
  embedTokens(pass);
  for (const layer of pass.layers) {
    const q = await project(pass, layer);
    const state = await attendAll(pass, layer, q);
    const choice = await beginSelection(pass, layer, state);
    addOutput(pass, layer, state);
    addMlp(pass, layer);
    await choice?.adopt();
    await afterLayer(layer);
  }
  await pass.arrive();
  return pass.x;
}

/** x = the embeddings of the tokens. */
function embedTokens({ model, inputs, batch, x, computed }: Pass): void {
  const { commands, scratch, weights, config } = model;
  let { tokens } = inputs;
  if (batch.carries) {
    tokens = scratch.take("carried tokens", "u32", [computed]);
    carryTokens(commands, { given: inputs.tokens, drawn: drawnTokens(model, 1), tokens, rows: computed });
  }
  embed(commands, { weight: weights.embedding, tokens, out: x, rows: computed, scale: config.embeddingScale });
}

/** x += norm(down(swiglu(gateUp(norm(x))))), with either norm or both */
function addMlp(pass: Pass, { weights }: PassLayer): void {
  const { model: { commands, scratch, config: { activation } }, batch, computed } = pass;
  const out = pass.rowsFor(weights.down, "activated");
  const x = pass.norm(weights.mlpNorm, weights.gateUp);
  multiplyGated(commands, batch.product, { weight: weights.gateUp, x, out, rows: computed, activation, scratch });
  pass.add({ weight: weights.down, rows: out, norm: weights.downNorm });
}
