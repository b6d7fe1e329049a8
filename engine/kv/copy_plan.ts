/**
 * How a worker of a group divides its memory between pages of its own and room for copies of what the others hold. A sequence that is
 * copied whole is computed by one worker at a time as if it were alone; what is copied whole takes as much memory on every worker
 * as it would take on one, so a group that copies everything holds no more than its smallest worker. Pure arithmetic.
 */

/** `auto`: the longest context is copied whole where memory allows; `whole`: everything is; `least`: an eighth of the slice. */
export const COPY_ROOMS = ["auto", "whole", "least"] as const;

/** One of them. */
export type CopyRoom = typeof COPY_ROOMS[number];

/** What the division follows from. */
export interface CopyPlan {
  readonly room: CopyRoom;
  /** Of the group, at least two; they are taken to be alike. */
  readonly workers: number;
}

/** How many pages a slice has. */
export interface SlicePages {
  readonly pages: number;
  readonly replicaPages: number;
}

/** Room in any case: this share of the slice's own pages, and never less than the replicas of a few sequences take. */
const LEAST_SHARE = 1 / 8;
const MIN_PAGES = 64;

/** The smallest share of a slice that is tried where its size is given. */
const SMALLEST_SHARE = 1 / 4;

/** Pages for copies that a slice of so many has at least. @param plan undefined: the worker is alone */
export function leastCopyPages(pages: number, plan: CopyPlan | undefined): number {
  if (plan === undefined) return 0;
  const least = Math.max(MIN_PAGES, Math.ceil(pages * LEAST_SHARE));
  return plan.room === "whole" ? Math.max(least, pages * (plan.workers - 1)) : least;
}

/** Of so many pages together, the most of its own that leave the least room for copies. */
export function ownPages(total: number, plan: CopyPlan | undefined): number {
  if (plan === undefined) return total;
  const own = Math.min(total - MIN_PAGES, Math.floor(total / (1 + LEAST_SHARE)));
  return Math.max(1, plan.room === "whole" ? Math.min(own, Math.floor(total / plan.workers)) : own);
}

/**
 * Divides pages that are there anyway. `auto` gives copies of one longest context as much as they take, as long as the group
 * still holds such a context.
 * @param contextPages of the longest context that the model was made for
 */
export function dividePages(total: number, contextPages: number, plan: CopyPlan | undefined): SlicePages {
  const most = ownPages(total, plan);
  if (plan === undefined) return { pages: total, replicaPages: 0 };
  if (plan.room !== "auto") return { pages: most, replicaPages: Math.max(total - most, leastCopyPages(most, plan)) };
  const { workers } = plan;
  const wanted = Math.ceil(contextPages * (workers - 1) / workers);
  const pages = Math.max(1, Math.min(most, Math.max(total - wanted, Math.ceil(contextPages / workers))));
  return { pages, replicaPages: Math.max(total - pages, leastCopyPages(pages, plan)) };
}

/**
 * Room that is tried beside a slice whose size is given, the most first: `auto` takes what can be copied at all, else as large
 * a part of it as the memory holds.
 * @param bindable pages that can be bound together
 */
export function copySizes(pages: number, bindable: number, plan: CopyPlan): readonly SlicePages[] {
  const least = leastCopyPages(pages, plan);
  const rooms: number[] = [];
  for (let share = plan.workers - 1; plan.room === "auto" && share >= SMALLEST_SHARE; share /= 2) {
    rooms.push(Math.min(Math.ceil(pages * share), bindable - pages));
  }
  return [...new Set(rooms)].filter((room) => room > least).map((replicaPages) => ({ pages, replicaPages }));
}

/**
 * Pages of the longest context that finds room for copies as a whole on every worker.
 * @param slices own pages of each worker
 * @param copyPages room that each has at least
 */
export function copiedPages(slices: readonly number[], copyPages: number): number {
  const all = slices.reduce((sum, pages) => sum + pages, 0);
  // A worker lacks all but its own share.
  const lacking = 1 - Math.min(...slices) / all;
  return lacking === 0 ? all : Math.min(all, Math.floor(copyPages / lacking));
}
