/** What answers cost that were completed or stopped, and where a server is that was given without its scheme. */

import assert from "node:assert/strict";

import { ChatClient, type ChatUsage } from "../../../../router/commands/chat/chat_client.ts";
import { ChatStats, ShownAnswer } from "../../../../router/commands/chat/shown_answer.ts";
import { MemoryTerminal } from "../../../support/memory_terminal.ts";

function usage(completionTokens: number): ChatUsage {
  return { promptTokens: 10, completionTokens, cachedTokens: 4, attention: undefined };
}

Deno.test("ShownAnswer counts what it was told last, also of an answer that was stopped", () => {
  const [terminal, stats] = [new MemoryTerminal(), new ChatStats()];
  for (const end of ["complete", "cut"] as const) {
    const shown = new ShownAnswer(terminal, stats, false);
    for (const tokens of [1, 2, 3]) {
      shown.show({ kind: "text", text: "a" });
      shown.show({ kind: "usage", usage: usage(tokens) });
    }
    shown[end]();
    assert.equal(shown.text, "aaa");
  }
  assert.match(stats.describe(), /^2 answers: 6 tokens.*, 8 of 20 prompt tokens cached$/);
});

Deno.test("ChatClient takes an address with and without scheme and version", () => {
  for (const url of ["http://localhost:8000/v1", "http://localhost:8000", "localhost:8000", "localhost:8000/v1/"]) {
    assert.equal(new ChatClient(url).url, "http://localhost:8000/v1");
  }
  assert.equal(new ChatClient("https://example.org").url, "https://example.org/v1");
});
