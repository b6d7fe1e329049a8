/** Reads server-sent events from an answer to `fetch`, which can carry an API key; `EventSource` cannot. */

import { createParser } from "eventsource-parser";

/** One event. */
export interface ServerEvent {
  /** `message` when the server named none. */
  readonly name: string;
  readonly data: string;
}

/** The events of a body, in order; leaving the loop closes the connection. */
export async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent> {
  const events: ServerEvent[] = [];
  const parser = createParser({ onEvent: ({ event, data }) => events.push({ name: event ?? "message", data }) });
  const reader = body.getReader();
  const decoder = new TextDecoder();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      parser.feed(decoder.decode(value, { stream: true }));
      yield* events.splice(0);
    }
  } finally {
    await reader.cancel();
  }
}
