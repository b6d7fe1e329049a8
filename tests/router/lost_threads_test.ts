import assert from "node:assert/strict";
import { LostThreads } from "../../router/lost_threads.ts";

class FakeThread {
  isEnded = false;
  onmessage: ((event: MessageEvent) => void) | null = null;
  onerror: ((event: ErrorEvent) => void) | null = null;

  terminate(): void {
    this.isEnded = true;
  }

  asWorker(): Worker {
    return this as unknown as Worker;
  }
}

Deno.test("LostThreads counts threads until they send a message or fail, and then ends them", () => {
  const lost = new LostThreads(2);
  const threads = [new FakeThread(), new FakeThread()] as const;
  for (const thread of threads) {
    assert.ok(!lost.isFull);
    lost.add(thread.asWorker());
  }
  assert.deepEqual([lost.size, lost.isFull], [2, true]);
  threads[0].onmessage?.(new MessageEvent("message"));
  assert.deepEqual([threads[0].isEnded, threads[1].isEnded, lost.isFull], [true, false, false]);
  const broken = new ErrorEvent("error", { cancelable: true });
  threads[1].onerror?.(broken);
  assert.deepEqual([threads[1].isEnded, broken.defaultPrevented, lost.size], [true, true, 0]);
});

Deno.test("LostThreads.close() ends those that still compute", () => {
  const lost = new LostThreads(1);
  const thread = new FakeThread();
  lost.add(thread.asWorker());
  lost.close();
  assert.deepEqual([thread.isEnded, lost.size], [true, 0]);
});
