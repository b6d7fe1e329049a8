/** What makes a sequence known to the workers of a group. */

import type { SequenceOpening } from "../../engine/span.ts";
import { countsPrefix, type GenerationRequest } from "./generation.ts";

/** What a sequence shows of its admission. */
export interface AdmittedSequence {
  readonly request: GenerationRequest;
  /** Entry of the group's page map at which its first page lies. */
  readonly pageOffset: number;
  /** Physical pages in order of position. */
  readonly pages: readonly number[];
  /** Pages at the start that come from the prefix cache. */
  readonly prefixPages: number;
}

/** What a sequence alone does not show. */
export interface OpeningParts extends Pick<SequenceOpening, "sequence" | "sparse" | "audited"> {
  /** Tokens of the pages that come from the prefix cache. */
  readonly prefix: Uint32Array;
}

/** The opening of a sequence at its present admission. */
export function openingOf(
  { request, pageOffset, pages, prefixPages }: AdmittedSequence,
  { sequence, sparse, audited, prefix }: OpeningParts,
): SequenceOpening {
  return {
    sequence,
    sampling: request.sampling,
    sparse,
    promptTokens: request.promptTokens.length,
    pageOffset,
    prefixPages: Uint32Array.from(pages.slice(0, prefixPages)),
    prefixTokens: countsPrefix(request, prefix.length) ? prefix : new Uint32Array(),
    audited,
  };
}
