/**
 * The memory that the tensors of an exchange lie in, as the exchange needs it: bytes out, bytes in, states merged. Owned
 * here, so that an exchange can be tested without a GPU. Knows tensors; knows nothing of peers.
 */

import type { ReadRequest, ReadWait } from "../kernels/gpu.ts";
import { mergeStates } from "../kernels/attention/merge_states.ts";
import type { RowRange } from "../kernels/attention/row_blocks.ts";
import type { Commands } from "../kernels/pipeline.ts";
import { Scratch } from "../kernels/scratch.ts";
import type { Tensor } from "../kernels/tensor.ts";

/** States to merge, see `mergeStates`. */
export type StatesToMerge = Parameters<typeof mergeStates>[1];

/** Reads what was asked for: into fresh memory, or into memory that is given. */
export type PreparedRead = (into?: Uint8Array) => Promise<Uint8Array[]>;

/** What happens here happens in order with what the engine records, but for what is delivered. */
export interface ExchangeMemory {
  /**
   * Copies of bytes, once everything recorded before has run: fresh ones, or views of `into`, where the bytes of each request
   * start at a multiple of 16.
   */
  read(requests: readonly ReadRequest[], wait?: ReadWait<ArrayBufferLike>): Promise<Uint8Array[]>;
  /**
   * Records a read without submitting anything: all that is left to do for it is the next `expect`.
   * @returns reads as `read` does, once everything recorded before this call was submitted and has run
   */
  prepare(requests: readonly ReadRequest[]): PreparedRead;
  /** Puts bytes into a tensor, after everything recorded before. */
  write(tensor: Tensor, data: Float32Array, byteOffset: number): void;
  /**
   * Submits what was recorded; from here on what is recorded may read data that is not there yet, and is not submitted before
   * `delivered`.
   */
  expect(): void;
  /** Puts bytes into a tensor, ahead of everything recorded since `expect`. */
  deliver(tensor: Tensor, data: Float32Array, byteOffset: number): void;
  /** Nothing else is expected. */
  delivered(): void;
  /** Copies bytes between tensors; offsets are multiples of 4. */
  copy(
    from: Tensor,
    to: Tensor,
    range: { readonly from: number; readonly to: number; readonly byteLength: number },
  ): void;
  /** Merges states in the order of their index. */
  merge(states: StatesToMerge): void;
  /** Working memory, f32, that lasts until `free`; contents last until the next use of the same name. */
  take(name: string, shape: readonly number[]): Tensor;
  /** Frees the working memory; it is made again when needed. */
  free(): void;
}

/** Bytes that were read, as f32: a view of the same memory. */
export function floatsOf({ buffer, byteOffset, byteLength }: Uint8Array): Float32Array {
  return new Float32Array(buffer, byteOffset, byteLength / 4);
}

/** The memory of a GPU. */
export class GpuExchangeMemory implements ExchangeMemory {
  readonly #commands: Commands;
  readonly #scratch: Scratch;

  constructor(commands: Commands) {
    this.#commands = commands;
    this.#scratch = new Scratch(commands);
  }

  /** See `ExchangeMemory`. @throws {GpuError} what kept the bytes from being read */
  read(requests: readonly ReadRequest[], wait?: ReadWait<ArrayBufferLike>): Promise<Uint8Array[]> {
    return this.#commands.read(requests, wait);
  }

  prepare(requests: readonly ReadRequest[]): PreparedRead {
    const staged = this.#commands.prepareRead(requests);
    return (into) => this.#commands.gpu.takeRead<ArrayBufferLike>(staged, { into });
  }

  write(tensor: Tensor, data: Float32Array, byteOffset: number): void {
    this.#commands.write(tensor, data, byteOffset);
  }

  expect(): void {
    this.#commands.expect();
  }

  deliver(tensor: Tensor, data: Float32Array, byteOffset: number): void {
    this.#commands.deliver(tensor, data, byteOffset);
  }

  delivered(): void {
    this.#commands.delivered();
  }

  copy(
    from: Tensor,
    to: Tensor,
    range: { readonly from: number; readonly to: number; readonly byteLength: number },
  ): void {
    this.#commands.copy(from, to, range);
  }

  merge(states: StatesToMerge): void {
    mergeStates(this.#commands, states);
  }

  take(name: string, shape: readonly number[]): Tensor {
    return this.#scratch.take(`exchange ${name}`, "f32", shape);
  }

  free(): void {
    // What was recorded may still refer to it.
    this.#commands.submit();
    this.#scratch.close();
  }
}

/** What is to be read at once. */
export type ReadList = Parameters<ExchangeMemory["read"]>[0];

/** Bytes that a read fills when it is given where to. */
export function readBytesOf(wanted: ReadList): number {
  return wanted.reduce((sum, { byteLength = 0 }) => sum + Math.ceil(byteLength / 16) * 16, 0);
}

/** Requests for runs of rows, one each. */
export function requestsFor(tensor: Tensor, runs: readonly RowRange[], rowBytes: number): ReadList {
  return runs.map(({ first, rows }) => ({ tensor, byteOffset: first * rowBytes, byteLength: rows * rowBytes }));
}
