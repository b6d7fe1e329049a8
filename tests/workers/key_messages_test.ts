/** Keys and values for peers that are gone. */

import assert from "node:assert/strict";
import type { ExchangeMemory } from "../../workers/exchange_memory.ts";
import { PeerError } from "../../workers/errors.ts";
import { KeyMessages } from "../../workers/key_messages.ts";
import { Mailbox } from "../../workers/mailbox.ts";

const POINT = { step: 7, batch: 0, layer: 2 };

/** A lost peer costs the step; a rejection that no one handles would cost the process, and with it the loaded model. */
Deno.test("KeyMessages.sendRead() fails once when a peer is lost, whether its mailbox is closed by then or not", async () => {
  for (const isClosed of [false, true]) {
    const mailbox = new Mailbox({ epoch: 3, onStalled: () => {} });
    mailbox.begin(POINT.step, 1000);
    const lost = new PeerError("peer_lost", "Cannot reach worker 2: the peer closed it", { peer: 2 });
    if (isClosed) mailbox.close(lost);
    const keys = new KeyMessages({
      epoch: 3,
      peers: [1, 2],
      memory: {} as ExchangeMemory,
      mailbox,
      recycle: () => {},
      send: (peer) => {
        if (peer === 2) throw lost;
      },
    });
    await assert.rejects(keys.sendRead(POINT, [Float32Array.of(1)]), lost);
    mailbox.end(POINT.step);
    mailbox.close(lost);
    // Rejections that no one handles are reported by the next turn.
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
});
