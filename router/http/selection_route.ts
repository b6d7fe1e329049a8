/** `GET /v1/sequences/{id}/selection`: where a sequence looked last. Knows response ids; knows nothing of the group. */

import { RequestError } from "../errors.ts";
import type { SelectionReader } from "../scheduling/selection_view.ts";

/**
 * @param id of the response, `chatcmpl-…` or `cmpl-…`
 * @param index of the choice as the client wrote it; undefined: the first
 * @throws {RequestError} `invalid_request`, `not_found`, `selection_unavailable`
 */
export function selectionAnswer(id: string, index: string | undefined, selections: SelectionReader): Response {
  const selection = readChoice(id, index, (request) => selections.read(request));
  if (selection === undefined) {
    const name = id.length <= 100 ? `"${id}"` : "of that id";
    throw new RequestError(
      "not_found",
      `Cannot find choice ${index ?? 0} of response ${name}: none is running or ended recently`,
    );
  }
  const layers = selection.layers.map(({ layer, position, sets }) => ({
    layer,
    position,
    sets: sets.map((positions) => [...positions]),
  }));
  return Response.json({
    object: "sequence.selection",
    id,
    index: parseIndex(index),
    running: selection.running,
    layers,
  });
}

/**
 * Finds one choice of a response by the name of its generation.
 * @throws {RequestError} `invalid_request` for what is no index, and what `read` throws
 */
export function readChoice<Found>(
  id: string,
  index: string | undefined,
  read: (request: string) => Found | undefined,
): Found | undefined {
  const choice = parseIndex(index);
  // A single choice has no index in its name.
  return read(`${id}-${choice}`) ?? (choice === 0 ? read(id) : undefined);
}

function parseIndex(index: string | undefined): number {
  if (index === undefined) return 0;
  if (/^\d{1,6}$/.test(index)) return Number(index);
  throw new RequestError("invalid_request", "Cannot read index: must be a whole number from 0 on", { param: "index" });
}
