/** Messages that come early, late, twice, too many or never. */

import assert from "node:assert/strict";
import { PeerError } from "../../workers/errors.ts";
import { Mailbox, type MailboxMessage, type MailboxOptions } from "../../workers/mailbox.ts";

interface Stall {
  readonly step: number;
  readonly on: readonly number[];
}

function rows(step: number, layer: number, values: readonly number[] = [step]): MailboxMessage {
  return { kind: "queries", epoch: 3, step, batch: 0, layer, rows: [Float32Array.from(values)] };
}

function at(step: number, layer: number) {
  return { step, batch: 0, layer };
}

async function withMailbox(
  play: (mailbox: Mailbox, stalls: readonly Stall[]) => Promise<void> | void,
  options: Partial<MailboxOptions> = {},
): Promise<void> {
  const stalls: Stall[] = [];
  const mailbox = new Mailbox({ epoch: 3, onStalled: (step, on) => stalls.push({ step, on }), ...options });
  try {
    await play(mailbox, stalls);
  } finally {
    mailbox.close(new PeerError("epoch_over", "Cannot finish step: the test is over"));
  }
}

Deno.test("Mailbox.take() finds what came before and waits for what comes later, by sender and place", async () => {
  await withMailbox(async (mailbox) => {
    mailbox.put(1, rows(7, 2));
    mailbox.put(2, rows(7, 2, [2]));
    mailbox.begin(7, 1000);
    assert.deepEqual((await mailbox.take(1, "queries", at(7, 2))).rows, [Float32Array.of(7)]);
    assert.deepEqual((await mailbox.take(2, "queries", at(7, 2))).rows, [Float32Array.of(2)]);
    const waiting = mailbox.take(1, "queries", at(7, 3));
    mailbox.put(1, rows(7, 4));
    mailbox.put(2, rows(7, 3));
    mailbox.put(1, rows(7, 3, [9]));
    assert.deepEqual((await waiting).rows, [Float32Array.of(9)]);
  });
});

Deno.test("Mailbox keeps messages of a step to come, and forgets those of steps that are over", async () => {
  await withMailbox(async (mailbox) => {
    mailbox.begin(7, 1000);
    mailbox.put(1, rows(7, 0));
    mailbox.put(1, rows(8, 0));
    mailbox.end(7);
    mailbox.begin(8, 1000);
    mailbox.put(1, rows(7, 1));
    assert.equal((await mailbox.take(1, "queries", at(8, 0))).step, 8);
    await assert.rejects(mailbox.take(1, "queries", at(7, 0)), /step 7 does not run/);
  }, { bounds: { messages: 2, bytes: 100 } });
});

Deno.test("Mailbox takes in messages of two steps that run at a time, each with its own deadline", async () => {
  await withMailbox(async (mailbox, stalls) => {
    mailbox.begin(7, 60_000);
    mailbox.begin(8, 100);
    const [early, late] = [mailbox.take(1, "queries", at(7, 0)), mailbox.take(1, "queries", at(8, 0))];
    await assert.rejects(late, /step 8: worker 1 has not sent the queries of layer 0 within 100 ms/);
    mailbox.put(1, rows(7, 0));
    assert.equal((await early).step, 7);
    assert.ok(stalls.length > 0);
    for (const stall of stalls) assert.deepEqual(stall, { step: 8, on: [1] });
    mailbox.end(7);
    mailbox.put(1, rows(8, 1));
    assert.equal((await mailbox.take(1, "queries", at(8, 1))).step, 8);
  });
});

Deno.test("Mailbox.departure() waits until a message has left, and gives up as any wait", async () => {
  await withMailbox(async (mailbox) => {
    mailbox.begin(7, 20);
    const [gone, stuck] = [mailbox.departure(1, "keys", at(7, 0)), mailbox.departure(2, "keys", at(7, 0))];
    gone.onSent();
    await gone.sent;
    await assert.rejects(stuck.sent, {
      code: "peer_late",
      peer: 2,
      message: "Cannot finish step 7: worker 2 has not taken the keys of layer 0 within 20 ms",
    });
    stuck.onSent();
    mailbox.begin(8, 1000);
    const { sent } = mailbox.departure(1, "keys", at(8, 0));
    mailbox.close(new PeerError("peer_lost", "Cannot reach worker 1: it is gone", { peer: 1 }));
    await assert.rejects(sent, /it is gone/);
  });
});

Deno.test("Mailbox.put() refuses another epoch, the same message twice, and more than it may hold", async () => {
  await withMailbox((mailbox) => {
    const refused = (sent: MailboxMessage, message: RegExp) =>
      assert.throws(() => mailbox.put(1, sent), { code: "protocol", message });
    refused({ ...rows(7, 0), epoch: 2 }, /of epoch 2: this is 3/);
    mailbox.put(1, rows(7, 0));
    refused(rows(7, 0), /came twice/);
    mailbox.put(1, rows(7, 1));
    refused(rows(7, 2), /2 messages/);
    mailbox.put(2, rows(7, 2));
  }, { bounds: { messages: 2, bytes: 1 << 20 } });
  await withMailbox((mailbox) => {
    mailbox.put(1, rows(7, 0, [1, 2, 3, 4]));
    assert.throws(() => mailbox.put(1, rows(7, 1)), { code: "protocol", message: /20 bytes/ });
  }, { bounds: { messages: 100, bytes: 16 } });
});

Deno.test("Mailbox reports whom a wait is for at half of its time, and gives it up at the deadline", async () => {
  await withMailbox(async (mailbox, stalls) => {
    mailbox.begin(7, 100);
    const startedAt = performance.now();
    const waits = [1, 2, "router"] as const;
    const ends = await Promise.allSettled(
      waits.map((from) => mailbox.take(from, from === "router" ? "selection" : "queries", at(7, 5))),
    );
    assert.ok(performance.now() - startedAt >= 99);
    const reasons = ends.map((end) => end.status === "rejected" ? [end.reason.code, end.reason.peer] : end);
    assert.deepEqual(reasons, [["peer_late", 1], ["peer_late", 2], ["peer_late", undefined]]);
    const [end] = ends;
    assert.equal(
      end?.status === "rejected" && end.reason.message,
      "Cannot finish step 7: worker 1 has not sent the queries of layer 5 within 100 ms",
    );
    assert.ok(stalls.length > 0 && stalls.length < 5, "and once more at half of what is left then");
    for (const stall of stalls) assert.deepEqual(stall, { step: 7, on: [1, 2] });
  });
});

Deno.test("Mailbox.take() gives up at once what was not sent when the step's deadline has passed already", async () => {
  await withMailbox(async (mailbox) => {
    mailbox.begin(7, 10);
    mailbox.put(1, rows(7, 4));
    await new Promise((resolve) => setTimeout(resolve, 30));
    assert.equal((await mailbox.take(1, "queries", at(7, 4))).step, 7);
    await assert.rejects(mailbox.take(2, "queries", at(7, 5)), {
      code: "peer_late",
      peer: 2,
      message: "Cannot finish step 7: worker 2 has not sent the queries of layer 5 within 10 ms",
    });
  });
});

Deno.test("Mailbox does not report a wait that ends in time", async () => {
  await withMailbox(async (mailbox, stalls) => {
    mailbox.begin(7, 100);
    const waiting = mailbox.take(1, "queries", at(7, 0));
    mailbox.put(1, rows(7, 0));
    await waiting;
    await new Promise((resolve) => setTimeout(resolve, 60));
    assert.deepEqual(stalls, []);
    mailbox.end(7);
    await new Promise((resolve) => setTimeout(resolve, 40));
  });
});

Deno.test("Mailbox.close() fails all that wait, now or later, with the first reason", async () => {
  await withMailbox(async (mailbox) => {
    mailbox.begin(7, 1000);
    const waiting = assert.rejects(mailbox.take(1, "queries", at(7, 0)), /the first/);
    mailbox.close(new PeerError("peer_lost", "Cannot finish step: the first"));
    mailbox.close(new PeerError("peer_lost", "Cannot finish step: the second"));
    await waiting;
    await assert.rejects(mailbox.take(1, "queries", at(7, 0)), /the first/);
    mailbox.put(1, rows(7, 0));
  });
});
