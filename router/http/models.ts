/** `GET /v1/models` and `/v1/models/{id}`: the one model that is served. */

import { longestContext } from "../scheduling/capacity.ts";
import { RequestError } from "../errors.ts";
import type { ModelInfo } from "../group/group.ts";

/** @param created seconds since 1970; when the service started, as models carry no date */
export function listModels(model: ModelInfo | undefined, created: number): Response {
  return Response.json({ object: "list", data: model === undefined ? [] : [modelBody(model, created)] });
}

/**
 * @param id as the client named it, slashes included
 * @throws {RequestError} `model_not_found`
 */
export function retrieveModel(id: string, model: ModelInfo | undefined, created: number): Response {
  if (model !== undefined && id === model.id) return Response.json(modelBody(model, created));
  throw new RequestError("model_not_found", `Cannot find model ${id.length <= 100 ? `"${id}"` : "of that name"}`, {
    param: "model",
  });
}

function modelBody(model: ModelInfo, created: number) {
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
  };
}
