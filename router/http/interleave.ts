/** Several async streams as one, in the order of arrival; asks each for its next value only when the last was taken. */

/** A value and the stream it came from. */
export interface Arrival<Value> {
  readonly index: number;
  readonly value: Value;
}

/**
 * Merges streams. The first failure ends it. Leaving early does not end the sources, which may wait for long:
 * their owner does.
 */
export async function* interleave<Value>(sources: readonly AsyncIterator<Value>[]): AsyncGenerator<Arrival<Value>> {
  const ready: { readonly index: number; readonly next: PromiseSettledResult<IteratorResult<Value>> }[] = [];
  let arrival = Promise.withResolvers<void>();
  const ask = async (source: AsyncIterator<Value>, index: number) => {
    const [next] = await Promise.allSettled([source.next()]);
    ready.push({ index, next });
    arrival.resolve();
  };
  sources.forEach(ask);
  for (let open = sources.length; open > 0;) {
    const first = ready.shift();
    if (first === undefined) {
      await arrival.promise;
      arrival = Promise.withResolvers();
      continue;
    }
    if (first.next.status === "rejected") throw first.next.reason;
    const { done, value } = first.next.value;
    if (done) {
      open--;
      continue;
    }
    yield { index: first.index, value };
    const source = sources[first.index];
    if (source !== undefined) ask(source, first.index);
  }
}
