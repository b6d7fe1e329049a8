/** The layer loop, as the paper has it: residual rows in, residual rows out, keys and values appended to the slice. */

import { carryTokens } from "../../kernels/logits/carry_tokens.ts";
import { embed } from "../../kernels/products/embed.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { drawnTokens } from "../logits/drawn_tokens.ts";
import { addOutput, attendAll, project } from "./attention.ts";
import type { Pass, PassLayer } from "./pass.ts";
import { multiplyGated } from "./products.ts";
import type { RowStates } from "./row_states.ts";
import { chooseFrom, offerSelection } from "./selection.ts";

/**
 * Runs a batch through all layers. In a group the states of a layer arrive while what follows them is recorded, up to the next
 * place where something is submitted.
 * @param afterLayer called after each of them
 * @returns the residual rows that this worker computes, before the final norm, f32 [computed, hidden]
 */
export async function forward(pass: Pass, afterLayer: (layer: PassLayer) => Promise<void> | void): Promise<Tensor> {
  embedTokens(pass);
  for (const layer of pass.layers) {
    const state = await attendLayer(pass, layer);
    const choice = await offerSelection(pass, layer);
    completeLayer(pass, layer, state);
    await choice?.adopt();
    await afterLayer(layer);
  }
  await pass.arrive();
  return pass.x;
}

/** The first half of a layer: its attention, and what it chooses from it. */
export async function attendLayer(pass: Pass, layer: PassLayer): Promise<RowStates> {
  const q = await project(pass, layer);
  const state = await attendAll(pass, layer, q);
  chooseFrom(pass, layer, state);
  return state;
}

/** The other half: what its attention and its MLP add. */
export function completeLayer(pass: Pass, layer: PassLayer, state: RowStates): void {
  addOutput(pass, layer, state);
  addMlp(pass, layer);
}

/** x = the embeddings of the tokens. */
export function embedTokens({ model, inputs, batch, x, computed }: Pass): void {
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
