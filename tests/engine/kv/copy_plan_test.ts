/** How much of a worker's memory copies get: by the model's longest context, by what the group must still hold, by what was asked for. */

import assert from "node:assert/strict";
import {
  copiedPages,
  type CopyPlan,
  copySizes,
  dividePages,
  leastCopyPages,
  ownPages,
} from "../../../engine/kv/copy_plan.ts";

const plan = (room: CopyPlan["room"], workers = 2): CopyPlan => ({ room, workers });
/** 131,072 positions. */
const CONTEXT = 2048;
const divided = (total: number, room: CopyPlan["room"], workers = 2, context = CONTEXT) => {
  const { pages, replicaPages } = dividePages(total, context, plan(room, workers));
  return [pages, replicaPages];
};

Deno.test("dividePages() gives copies of one longest context the room they take, as long as the group still holds it", () => {
  // 120 GB of an 8B model: an eighth is more than one context of 131,072 positions needs.
  assert.deepEqual(divided(14_300, "auto"), divided(14_300, "least"));
  // 48 GB: half of a context is more than an eighth.
  assert.deepEqual([divided(4000, "auto"), divided(4000, "least")], [[2976, 1024], [3555, 445]]);
  // Four workers lack three quarters of it.
  assert.deepEqual(divided(4000, "auto", 4), [2464, 1536]);
  // One card holds half of it and a little more: together they must hold all of it.
  assert.deepEqual(divided(1300, "auto"), [1024, 276]);
  // Even together they cannot: copies keep an eighth.
  assert.deepEqual([divided(1000, "auto"), divided(1000, "least")], [[888, 112], [888, 112]]);
});

Deno.test("dividePages() copies everything where that is asked for: a group then holds what one worker would", () => {
  assert.deepEqual([divided(4000, "whole"), divided(4000, "whole", 4)], [[2000, 2000], [1000, 3000]]);
  for (const room of ["auto", "whole", "least"] as const) {
    assert.deepEqual(divided(2, room), [1, 64], "never fewer than a page, and the replicas of a few sequences");
  }
  assert.deepEqual(dividePages(4000, CONTEXT, undefined), { pages: 4000, replicaPages: 0 });
});

Deno.test("leastCopyPages() and ownPages() agree on what fits together", () => {
  for (const room of ["auto", "whole", "least"] as const) {
    for (const workers of [2, 3, 8]) {
      for (const total of [130, 1000, 4321]) {
        const own = ownPages(total, plan(room, workers));
        assert.ok(own + leastCopyPages(own, plan(room, workers)) <= total, `${room} ${workers} ${total}: ${own}`);
      }
    }
  }
  assert.deepEqual([leastCopyPages(10, undefined), ownPages(10, undefined)], [0, 10]);
});

Deno.test("copySizes() tries what can be copied at all first, and nothing beyond what was asked for", () => {
  const rooms = (bindable: number, workers = 2, room: CopyPlan["room"] = "auto") =>
    copySizes(2188, bindable, plan(room, workers)).map(({ replicaPages }) => replicaPages);
  assert.deepEqual(rooms(100_000), [2188, 1094, 547]);
  assert.deepEqual(rooms(100_000, 4), [6564, 3282, 1641, 821]);
  assert.deepEqual(rooms(2188 + 600), [600, 547]);
  assert.deepEqual(rooms(2188 + 200), []);
  assert.deepEqual([rooms(100_000, 2, "least"), rooms(100_000, 2, "whole")], [[], []]);
});

Deno.test("copiedPages() is the longest context of which every worker has room for what it lacks", () => {
  assert.deepEqual(copiedPages([1000, 1000], 250), 500);
  assert.deepEqual(copiedPages([1000, 1000, 1000, 1000], 750), 1000);
  assert.deepEqual(copiedPages([3000, 1000], 750), 1000, "the small one lacks three quarters");
  assert.deepEqual(copiedPages([1000, 1000], 1_000_000), 2000);
});
