/** What can go wrong with the hub: only commands meet it, before a service serves. */

import { CodedError } from "../../kernels/errors.ts";

/**
 * - `hub_unreachable`: trying again may help.
 * - `hub_refused`: the repository, a file or the right to read it is missing.
 * - `hub_corrupt`: the content is not what was promised.
 * - `cache_unwritable`: the cache folder cannot be written.
 */
export type HubErrorCode = "hub_unreachable" | "hub_refused" | "hub_corrupt" | "cache_unwritable";

/** Raised by `router/hub/`. */
export class HubError extends CodedError<HubErrorCode> {}
