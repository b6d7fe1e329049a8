/** Command lines of deployments, read as the program itself reads them. */

import { parseFlags } from "../../router/command_line.ts";
import { command as serve } from "../../router/commands/serve.ts";
import { command as worker } from "../../router/commands/worker.ts";
import { configFromFlags, resolveConfig, type ResolvedConfig } from "../../router/config.ts";

/**
 * Reads `serve …` with the environment of its process.
 * @throws {UsageError} as `serve` would
 */
export function servedBy(args: readonly string[], env: Readonly<Record<string, string>> = {}): ResolvedConfig {
  return resolveConfig(configFromFlags(parseFlags("serve", serve.flags, { args: [...args], env })));
}

/** Flags of `worker …`. @throws {UsageError} as `worker` would */
export function workerFlags(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): ReturnType<typeof parseFlags<typeof worker.flags>> {
  return parseFlags("worker", worker.flags, { args: [...args], env });
}
