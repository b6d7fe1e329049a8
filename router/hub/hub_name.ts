/** Names of models on the hub: `org/model`, or `org/model:quant` for one of several GGUF files. */

import { UsageError } from "../errors.ts";

/** A parsed name. */
export interface HubName {
  /** `org/model` */
  readonly repository: string;
  /** Such as `Q4_K_M`; undefined: the repository decides. */
  readonly quant: string | undefined;
}

const NAME = /^([A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*)(?::([A-Za-z0-9][\w.-]*))?$/;

/** @returns undefined when a text is no name, as paths are not that begin with a dot or a slash */
export function parseHubName(text: string): HubName | undefined {
  const [, repository, quant] = NAME.exec(text) ?? [];
  if (repository === undefined || repository.includes("..")) return undefined;
  return { repository, quant };
}

/** @throws {UsageError} when a text is no name */
export function requireHubName(text: string): HubName {
  const name = parseHubName(text);
  if (name !== undefined) return name;
  throw new UsageError(`Cannot pull a model: its name must be org/model or org/model:quant, given "${text}"`);
}
