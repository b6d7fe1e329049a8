/**
 * What a spawned worker may do, as flags of Deno: talk to this host, read its model, ask how much memory there is. It may
 * neither write files nor start programs, so a flaw in what parses weights or frames cannot do so either.
 */

import type { ModelSource } from "../../engine/engine.ts";

/**
 * The flags for a worker on this host.
 * @param extra of whatever opens its GPU, such as `--allow-ffi`
 */
export function workerPermissions(model: ModelSource, extra: readonly string[] = []): readonly string[] {
  return [
    "--no-prompt",
    // The router and the other workers of this host; both ends of every connection.
    "--allow-net=127.0.0.1",
    ...("directory" in model ? [`--allow-read=${escaped(model.directory)}`] : []),
    // Vulkan's loader and OpenTelemetry are configured by it, and each flag has a variable.
    "--allow-env",
    "--allow-sys=systemMemoryInfo",
    ...extra,
  ];
}

/** In a list of paths a comma is written twice. */
function escaped(path: string): string {
  return path.replaceAll(",", ",,");
}
