/** What a scheduler says that has done nothing. */

import type { SchedulerStats } from "../../router/scheduling/scheduler_observer.ts";

/** All zeros. */
export const NO_STATS: SchedulerStats = {
  running: 0,
  waiting: 0,
  pages: { total: 0, used: 0, cached: 0, free: 0 },
  prefix: { queryTokens: 0, hitTokens: 0 },
  preemptions: 0,
  replays: 0,
  steps: 0,
  tokens: { prefilled: 0, generated: 0 },
};
