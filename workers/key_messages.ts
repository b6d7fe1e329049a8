/**
 * Keys and values from the worker that computes them to all others: out of the GPU, through memory of the host where all are on one,
 * else through the links, and into their GPUs. Knows tensors and peers; knows nothing of layers or of what is computed meanwhile.
 */

import type { Tensor } from "../kernels/tensor.ts";
import type { ExchangePoint } from "../engine/exchange.ts";
import { type ExchangeMemory, requestsFor } from "./exchange_memory.ts";
import type { KeySharing } from "./key_sharing.ts";
import type { Mailbox } from "./mailbox.ts";
import type { ExchangeMessage, Tensors } from "./peer_protocol.ts";
import { SendBuffers } from "./send_buffers.ts";
import type { SharedPlace } from "./shared_file.ts";
import { checkParts } from "./state_exchange.ts";

/** Keys and values on a GPU: u32 [rows, rowBytes / 4]. */
export interface KeyRows {
  readonly tensor: Tensor;
  readonly rowBytes: number;
  readonly rows: number;
}

/** A message of them, or about them. */
type KeyMessage = Extract<ExchangeMessage, { readonly kind: "keys" | "taken" }>;

/** Whom they go to, and through what. */
export interface KeyMessagesOptions {
  readonly epoch: number;
  readonly peers: readonly number[];
  readonly memory: ExchangeMemory;
  readonly mailbox: Mailbox;
  /** @default none: all goes through the links */
  readonly sharing?: KeySharing | undefined;
  readonly send: (peer: number, message: KeyMessage, onSent?: () => void) => void;
  readonly recycle: (peer: number, payload: ArrayBuffer) => void;
}

/** @see the file's paragraph; any wait may reject with a `PeerError` */
export class KeyMessages {
  readonly #options: KeyMessagesOptions;
  readonly #buffers = new SendBuffers();

  constructor(options: KeyMessagesOptions) {
    this.#options = options;
  }

  /** Reads keys and values after everything recorded before, and sends them. @returns when all peers have them, or they have left */
  async send(point: ExchangePoint, { tensor, rowBytes, rows: count }: KeyRows): Promise<void> {
    const { memory, peers, sharing } = this.#options;
    const into = this.#buffers.take(count * rowBytes);
    const passed: { place?: SharedPlace | undefined } = {};
    // Layers are computed meanwhile: a millisecond more does not matter.
    const wait = {
      into,
      isPatient: true,
      visit: (bytes: Uint8Array) => {
        passed.place = sharing?.put(bytes);
        return passed.place !== undefined;
      },
    };
    const [bytes] = await memory.read(requestsFor(tensor, [{ first: 0, rows: count }], rowBytes), wait);
    const { place } = passed;
    if (place !== undefined) {
      this.#buffers.give(into);
      await Promise.all(peers.map((peer) => this.#pass(peer, point, place)));
      return sharing?.free(place);
    }
    const rows = [new Float32Array(into.buffer, 0, (bytes ?? into).byteLength / 4)];
    await this.sendRead(point, rows);
    this.#buffers.give(into);
  }

  /** Sends what has been read. @returns when it has left */
  async sendRead(point: ExchangePoint, rows: Tensors): Promise<void> {
    const { peers, mailbox, send } = this.#options;
    await Promise.all(peers.map((peer) => {
      const { onSent, sent } = mailbox.departure(peer, "keys", point);
      send(peer, { kind: "keys", ...this.#tag(point), rows }, onSent);
      return sent;
    }));
  }

  /** Fills a tensor with what a peer sends. */
  async take(point: ExchangePoint, from: number, { tensor, rowBytes, rows: count }: KeyRows): Promise<void> {
    const { memory, mailbox, recycle } = this.#options;
    const { rows, shared } = await mailbox.take(from, "keys", point);
    if (shared !== undefined) return this.#takeShared(point, { from, shared }, { tensor, bytes: count * rowBytes });
    checkParts(from, rows, [count * rowBytes]);
    for (const part of rows) {
      memory.write(tensor, part, 0);
      recycle(from, part.buffer);
    }
  }

  /** Tells a peer where they lie. @returns when it has read them */
  #pass(peer: number, point: ExchangePoint, shared: SharedPlace): Promise<void> {
    const { mailbox, send } = this.#options;
    const { sent } = mailbox.departure(peer, "keys", point);
    send(peer, { kind: "keys", ...this.#tag(point), rows: [], shared });
    return sent;
  }

  #takeShared(
    point: ExchangePoint,
    { from, shared }: { readonly from: number; readonly shared: SharedPlace },
    { tensor, bytes }: { readonly tensor: Tensor; readonly bytes: number },
  ): void {
    const { memory, sharing, send } = this.#options;
    memory.fill(tensor, bytes, (into) => sharing?.read(from, shared, into));
    send(from, { kind: "taken", ...this.#tag(point) });
  }

  #tag({ step, batch, layer }: ExchangePoint) {
    return { epoch: this.#options.epoch, step, batch, layer };
  }
}
