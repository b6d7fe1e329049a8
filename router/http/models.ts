/** `GET /v1/models` and `/v1/models/{id}`: the one model that is served. */

import { PAGE_TOKENS } from "../../engine/span.ts";
import { longestContext } from "../scheduling/capacity.ts";
import { RequestError } from "../errors.ts";
import type { GroupState, ModelInfo } from "../group/group.ts";

/** The served model. */
export interface Listing {
  /** By the group with the longest context; undefined while it loads. */
  readonly model: ModelInfo | undefined;
  /** Of each group. */
  readonly states: readonly GroupState[];
  /** Seconds since 1970; when the service started, as models carry no date. */
  readonly created: number;
}

/** All models that are served. */
export function listModels({ model, ...rest }: Listing): Response {
  return Response.json({ object: "list", data: model === undefined ? [] : [modelBody(model, rest)] });
}

/**
 * @param id as the client named it, slashes included
 * @throws {RequestError} `model_not_found`
 */
export function retrieveModel(id: string, { model, ...rest }: Listing): Response {
  if (model !== undefined && id === model.id) return Response.json(modelBody(model, rest));
  throw new RequestError("model_not_found", `Cannot find model ${id.length <= 100 ? `"${id}"` : "of that name"}`, {
    param: "model",
  });
}

function modelBody(model: ModelInfo, { states, created }: Omit<Listing, "model">) {
  return {
    id: model.id,
    object: "model",
    created,
    owned_by: "tidepool",
    // vLLM's name and llama.cpp's, as their clients look for either.
    max_model_len: longestContext(model),
    meta: { n_ctx_train: model.maxPositions, n_vocab: model.vocabSize, n_params: model.parameters },
    attention: {
      layers: model.layers,
      select_layers: model.selectLayers,
      budget: model.sparse?.budget ?? null,
      sparse_from: model.sparse?.sparseFrom ?? null,
    },
    groups: states.map((state, group) => ({
      group,
      ready: state.kind === "ready",
      max_model_len: state.kind === "ready" ? longestContext(state.model) : 0,
      capacity_tokens: state.kind === "ready" ? state.model.kvPages * PAGE_TOKENS : 0,
    })),
  };
}
