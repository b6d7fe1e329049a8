/** What the descriptions of several workers make of their group. */

import type { EngineInfo, MeasuredStep } from "../../engine/engine_info.ts";
import type { ModelInfo } from "./group.ts";

/** A worker and what it has reported about the model it loaded. */
export interface InformedWorker {
  /** For people. */
  readonly name: string;
  readonly info: EngineInfo;
}

/** What must be the same on all workers. */
const SHARED = [
  "digest",
  "layers",
  "maxPositions",
  "vocabSize",
  "parameters",
  "roles",
  "selectLayers",
  "sparse",
] as const satisfies readonly (keyof EngineInfo)[];

/** Why workers cannot be one group, naming two of them and both values; undefined when they can. */
export function disagreement([first, ...others]: readonly InformedWorker[]): string | undefined {
  if (first === undefined) return undefined;
  for (const other of others) {
    for (const name of SHARED) {
      const [a, b] = [first, other].map(({ info }) => JSON.stringify(info[name] ?? "none"));
      if (a !== b) return `Cannot form group: ${first.name} has ${name} ${a}, ${other.name} has ${b}`;
    }
  }
  return undefined;
}

/**
 * Workers that cannot be in a group with the others, each with the reason: they differ from the model that was served
 * before, or else from what most of them have loaded; the first ones decide a tie.
 */
export function outliers<W extends InformedWorker>(workers: readonly W[], digest?: string): ReadonlyMap<W, string> {
  const out = new Map<W, string>();
  for (const worker of workers) {
    if (digest === undefined || worker.info.digest === digest) continue;
    out.set(worker, `Cannot join group: ${worker.name} has digest "${worker.info.digest}", the group "${digest}"`);
  }
  const parties = Map.groupBy(
    workers.filter((worker) => !out.has(worker)),
    ({ info }) => SHARED.map((name) => JSON.stringify(info[name] ?? "none")).join(" "),
  );
  const [[model] = [], ...others] = [...parties.values()].sort((a, b) => b.length - a.length);
  for (const other of others.flat()) {
    if (model !== undefined) out.set(other, disagreement([model, other]) ?? "");
  }
  return out;
}

/**
 * Whether a group computes on matrix units: all of its workers, or none. Rows that several workers compute must err alike,
 * and halves err more than a plain product does.
 */
export function usesMatrices(workers: readonly InformedWorker[]): boolean {
  return workers.every(({ info: { matrix } }) => matrix !== undefined);
}

/** Whether all workers compute the same bits: they have the same adapter, and reach it in the same way. */
export function computesAlike(workers: readonly InformedWorker[]): boolean {
  return new Set(workers.map(({ info: { adapter, provider } }) => `${provider} ${adapter}`)).size === 1;
}

/** For the operator: why matrix units lie idle; undefined when none do. */
export function idleMatrices(workers: readonly InformedWorker[]): string | undefined {
  const without = workers.filter(({ info: { matrix } }) => matrix === undefined);
  if (without.length === 0 || without.length === workers.length) return undefined;
  const names = without.map(({ name, info: { adapter, provider } }) => `${name} (${adapter}, ${provider})`).join(", ");
  return `The group leaves its matrix units unused: ${names} has none, and all workers must compute alike`;
}

/**
 * The model as the group serves it.
 * @param workers in the order of their indices, at least one; they agree
 */
export function modelOf(workers: readonly InformedWorker[], id: string): ModelInfo {
  const [lead] = workers;
  if (lead === undefined) throw new RangeError("Cannot describe model: no worker has it");
  const slices = workers.map(({ info: { kvPages } }) => kvPages);
  return {
    ...lead.info,
    id,
    software: workers.some(({ info: { software } }) => software),
    cheapCorrections: Math.min(...workers.map(({ info }) => info.cheapCorrections)),
    measured: slowest(workers),
    kvPages: slices.reduce((sum, pages) => sum + pages, 0),
    slices,
    copyPages: computesAlike(workers) ? Math.min(...workers.map(({ info: { replicaPages } }) => replicaPages)) : 0,
    matrix: usesMatrices(workers) ? lead.info.matrix : undefined,
    adapters: workers.map(({ info: { adapter } }) => adapter),
  };
}

/** What the steps took on the slowest worker that ran the same: a group takes at least as long. */
function slowest(workers: readonly InformedWorker[]): readonly MeasuredStep[] {
  const all = workers.flatMap(({ info }) => info.measured);
  const byStep = Map.groupBy(all, ({ kind, rows, context }) => `${kind} ${rows} ${context}`);
  return [...byStep.values()].flatMap((same) => same.toSorted((a, b) => b.ms - a.ms).slice(0, 1));
}

/** How long a step may take that warms a group up, beside a multiple of the longest that warmed up a worker. */
const WARM_UP_MS = 8000;
const WARM_UP_FACTOR = 5;

/** Deadline of a step that warms a group up. @param measured what its workers' own steps took, at least one */
export function warmUpMs(measured: readonly MeasuredStep[]): number {
  return WARM_UP_MS + WARM_UP_FACTOR * Math.max(...measured.map(({ ms }) => ms));
}
