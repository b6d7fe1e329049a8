/** Memory of a host that workers pass messages through; where there is none, offers are not made. */

import assert from "node:assert/strict";
import { KeySharing, type SharingMessage } from "../../workers/key_sharing.ts";
import { SharedInbox, SharedOutbox } from "../../workers/shared_file.ts";

/** Whether this host has such memory at all. */
function isThere(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

const HAS_MEMORY = isThere("/dev/shm");

Deno.test("SharedOutbox passes bytes slot by slot, as many as are free", () => {
  const outbox = SharedOutbox.create();
  assert.equal(outbox !== undefined, HAS_MEMORY);
  if (outbox === undefined) return;
  const inbox = SharedInbox.open(outbox.offer) ?? assert.fail("it lies on this host");
  try {
    const messages = Array.from({ length: 6 }, (_, i) => new Uint8Array(100 + i).fill(i + 1));
    const places = messages.map((bytes) => outbox.put(bytes) ?? assert.fail());
    assert.equal(outbox.put(new Uint8Array(1)), undefined);
    outbox.unlink();
    assert.ok(!isThere(outbox.offer.path));
    for (const [i, place] of places.entries()) {
      const into = new Uint8Array(place.bytes);
      assert.ok(inbox.read(place, into));
      assert.deepEqual(into, messages[i]);
    }
    const [first = assert.fail()] = places;
    outbox.free(first);
    assert.deepEqual(outbox.put(new Uint8Array(7)), { slot: first.slot, bytes: 7 });
    assert.ok(!inbox.read({ slot: 0, bytes: 5 }, new Uint8Array(6)));
    assert.ok(!inbox.read({ slot: 99, bytes: 5 }, new Uint8Array(5)));
  } finally {
    inbox.close();
    outbox.close();
  }
});

Deno.test("SharedInbox.open() opens nothing but what was offered", () => {
  const nonce = new Uint32Array(8);
  assert.equal(SharedInbox.open({ path: "/etc/hostname", nonce }), undefined);
  assert.equal(SharedInbox.open({ path: `/dev/shm/tidepool-${"0".repeat(32)}`, nonce }), undefined);
  const outbox = SharedOutbox.create();
  if (outbox === undefined) return;
  try {
    assert.equal(SharedInbox.open({ ...outbox.offer, nonce }), undefined);
    assert.equal(SharedInbox.open({ ...outbox.offer, nonce: new Uint32Array(2) }), undefined);
  } finally {
    outbox.close();
  }
});

/** Two workers whose messages wait until they are delivered; `isNear` says whether the second can open what the first offers. */
function pair(isNear: boolean) {
  const waiting: { readonly to: number; readonly message: SharingMessage }[] = [];
  const workers = [0, 1].map((index) =>
    new KeySharing({
      epoch: 1,
      peers: [1 - index],
      send: (to, message) => void waiting.push({ to, message }),
    })
  );
  const deliver = () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const { to, message } = next;
      const isHidden = message.kind === "offer" && to === 1 && !isNear;
      workers[to]?.receive(1 - to, isHidden ? { ...message, nonce: new Uint32Array(8) } : message);
    }
  };
  const [first = assert.fail(), second = assert.fail()] = workers;
  return { first, second, deliver };
}

const NEAR = true;
const FAR = false;

Deno.test("KeySharing passes nothing before the peer has said that it can read it, and nothing to one that cannot", () => {
  for (const isNear of [NEAR, FAR]) {
    const { first, second, deliver } = pair(isNear);
    try {
      const bytes = Uint8Array.of(1, 2, 3, 4);
      assert.equal(first.put(bytes), undefined);
      deliver();
      const place = first.put(bytes);
      assert.equal(place !== undefined, HAS_MEMORY && isNear);
      if (place === undefined) continue;
      const into = new Uint8Array(4);
      second.read(0, place, into);
      assert.deepEqual(into, bytes);
      assert.throws(() => second.read(0, place, new Uint8Array(5)), {
        ...{ code: "peer_lost", peer: 0 },
        message: /^Cannot read memory of worker 0: slot \d holds 4 bytes, expected 5$/,
      });
      first.free(place);
    } finally {
      first.close();
      second.close();
    }
  }
});

Deno.test("KeySharing refuses other epochs and second offers, and opens nothing once it is closed", () => {
  const outbox = SharedOutbox.create();
  if (outbox === undefined) return;
  const sent: SharingMessage[] = [];
  const sharing = new KeySharing({ epoch: 2, peers: [1], send: (_, message) => void sent.push(message) });
  const offer = { kind: "offer", epoch: 2, ...outbox.offer } as const;
  try {
    assert.throws(() => sharing.receive(1, { ...offer, epoch: 1 }), /Cannot take offer of epoch 1: this is 2$/);
    sharing.receive(1, offer);
    assert.throws(() => sharing.receive(1, offer), /Cannot take offer: worker 1 has made one already$/);
    sharing.close();
    sharing.receive(1, offer);
    assert.deepEqual(sent, [{ kind: "reached", epoch: 2, isReached: true }]);
    assert.equal(sharing.put(Uint8Array.of(1)), undefined);
  } finally {
    sharing.close();
    outbox.close();
  }
});
