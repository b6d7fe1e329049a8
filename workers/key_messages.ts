/**
 * Keys and values from the worker that computes them to all others: out of the GPU, through the links, and into their GPUs.
 * Knows tensors and peers; knows nothing of layers or of what is computed meanwhile.
 */

import type { Tensor } from "../kernels/tensor.ts";
import type { ExchangePoint } from "../engine/exchange.ts";
import { floatsOf, requestsFor } from "./exchange_memory.ts";
import type { ExchangeOptions } from "./exchange_options.ts";
import type { PeerMessage, Tensors } from "./peer_protocol.ts";
import { SendBuffers } from "./send_buffers.ts";
import { checkParts } from "./state_exchange.ts";

/** Keys and values on a GPU: u32 [rows, rowBytes / 4]. */
export interface KeyRows {
  readonly tensor: Tensor;
  readonly rowBytes: number;
  readonly rows: number;
}

type KeyMessage = Extract<PeerMessage, { readonly kind: "keys" }>;

/** Whom they go to, and through what. */
export interface KeyMessagesOptions extends ExchangeOptions {
  readonly epoch: number;
  readonly send: (peer: number, message: KeyMessage, onSent?: () => void) => void;
}

/** See the top of this file; any wait may reject with a `PeerError` */
export class KeyMessages {
  readonly #options: KeyMessagesOptions;
  /** Its own: other messages, of other sizes, would push out the large buffers that the next prompt needs. */
  readonly #buffers = new SendBuffers();

  constructor(options: KeyMessagesOptions) {
    this.#options = options;
  }

  /** Reads keys and values after everything recorded before, and sends them. @returns when they have left */
  async send(point: ExchangePoint, { tensor, rowBytes, rows: count }: KeyRows): Promise<void> {
    const into = this.#buffers.take(count * rowBytes);
    // Layers are computed meanwhile: a millisecond more does not matter.
    const wait = { into, isPatient: true };
    const wanted = requestsFor(tensor, [{ first: 0, rows: count }], rowBytes);
    const read = await this.#options.memory.read(wanted, wait);
    await this.sendRead(point, read.map(floatsOf));
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
    const { rows } = await mailbox.take(from, "keys", point);
    checkParts(from, rows, [count * rowBytes]);
    for (const part of rows) {
      memory.write(tensor, part, 0);
      recycle(from, part.buffer);
    }
  }

  #tag({ step, batch, layer }: ExchangePoint) {
    return { epoch: this.#options.epoch, step, batch, layer };
  }
}
