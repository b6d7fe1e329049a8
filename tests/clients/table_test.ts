/** The table of clients in docs/api.md names the versions that are tested here. */

import assert from "node:assert/strict";

const CLIENTS = [
  "openai",
  "@ai-sdk/openai",
  "@ai-sdk/openai-compatible",
  "@ai-sdk/anthropic",
  "ai",
  "@anthropic-ai/sdk",
];

Deno.test("docs/api.md names each client with its tested version, and every client that is tested", async () => {
  const root = new URL("../../", import.meta.url);
  const { imports } = JSON.parse(await Deno.readTextFile(new URL("deno.json", root))) as {
    imports: Readonly<Record<string, string>>;
  };
  const page = await Deno.readTextFile(new URL("docs/api.md", root));
  const rows = page.split("\n").filter((line) => /^\| `[^`]+` \d/.test(line));
  for (const client of [...CLIENTS, "@langchain/openai"]) {
    const [major, minor] = imports[client]?.split("@").at(-1)?.split(".") ?? [];
    const named = rows.flatMap((row) => [...row.matchAll(/`([^`]+)` (\d+)(?:\.(\d+))?/g)])
      .filter(([, name]) => name === client);
    assert.ok(named.length > 0, `${client} is not in the table`);
    for (const [, , shownMajor, shownMinor = minor] of named) {
      assert.deepEqual([shownMajor, shownMinor], [major, minor], client);
    }
  }
});
