/**
 * How many connections a process can hold: as many as it has file descriptors left over by everything else it does.
 */

import { UsageError } from "../errors.ts";
import { readSystemFile } from "../host/system_files.ts";

/** More would cost more memory than one router should hold for idle clients. */
const MAX_DEFAULT = 4096;

/** Kept for workers, files and the runtime itself: a quarter of all, at least 64. */
function reservedDescriptors(limit: number): number {
  return Math.max(64, Math.ceil(limit / 4));
}

/**
 * The bound on connections.
 * @param asked undefined: what the descriptors allow, at most 4096
 * @param descriptorLimit undefined: the system does not say, and 1024 are assumed unless more are asked for
 * @throws {UsageError} when more are asked for than the descriptors allow
 */
export function connectionLimit(asked: number | undefined, descriptorLimit: number | undefined): number {
  const limit = descriptorLimit ?? 1024;
  const possible = Math.max(1, limit - reservedDescriptors(limit));
  if (asked === undefined) return Math.min(MAX_DEFAULT, possible);
  if (asked <= possible || descriptorLimit === undefined) return asked;
  throw new UsageError(
    `Cannot configure maxConnections: at most ${possible} are possible with ${limit} file descriptors, given ${asked} ` +
      "(raise ulimit -n)",
  );
}

/** The descriptors this process may open, as far as the system says. */
export function descriptorLimit(): number | undefined {
  return parseDescriptorLimit(readSystemFile("/proc/self/limits") ?? "");
}

/** Reads the soft limit from the text of `/proc/self/limits`. */
export function parseDescriptorLimit(text: string): number | undefined {
  const [, soft] = /^Max open files\s+(\d+|unlimited)/m.exec(text) ?? [];
  if (soft === undefined) return undefined;
  return soft === "unlimited" ? Number.MAX_SAFE_INTEGER : Number(soft);
}
