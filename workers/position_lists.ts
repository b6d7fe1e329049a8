/**
 * Lists of positions on their way between a worker and its router: all lists of a batch, back to back, so that a
 * message holds a few long tensors and not many short ones. Knows lengths; knows nothing of what is chosen or why.
 */

import { ProtocolError } from "./errors.ts";

type Tensor = Uint32Array<ArrayBufferLike> | Float32Array<ArrayBufferLike>;

/** Joins lists of positions, or of other words. */
export function joinWords(lists: readonly Uint32Array[]): Uint32Array<ArrayBuffer> {
  const joined = new Uint32Array(totalOf(lists));
  fill(joined, lists);
  return joined;
}

/** Joins lists of values. */
export function joinValues(lists: readonly Float32Array[]): Float32Array<ArrayBuffer> {
  const joined = new Float32Array(totalOf(lists));
  fill(joined, lists);
  return joined;
}

/**
 * The inverse. Does not copy: the lists are views of `joined`.
 * @throws {ProtocolError} when the lengths are not those of `joined`
 */
export function cutLists<T extends Tensor>(joined: T, lengths: Uint32Array): readonly T[] {
  let end = 0;
  const lists = Array.from(lengths, (length) => joined.subarray(end, end += length) as T);
  if (end !== joined.length) {
    throw new ProtocolError(`Cannot read lists: they hold ${end} elements together, given ${joined.length}`);
  }
  return lists;
}

function totalOf(lists: readonly Tensor[]): number {
  return lists.reduce((sum, { length }) => sum + length, 0);
}

function fill(joined: Tensor, lists: readonly Tensor[]): void {
  let at = 0;
  for (const list of lists) {
    joined.set(list, at);
    at += list.length;
  }
}
