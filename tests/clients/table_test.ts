/** The table of clients in docs/api.md: the versions that are tested here, and a test for each cell that says yes. */

import assert from "node:assert/strict";

const ROOT = new URL("../../", import.meta.url);

/** What the columns of the table are called in the names of tests: `CLIENT: FEATURE and FEATURE, …`. */
const FEATURES = ["text", "stream", "tools", "schema", "errors"] as const;

/** First cell of each row, and the client in the names of tests. */
const CLIENTS: Readonly<Record<string, string>> = {
  "`openai` 7.57, chat": "openai chat",
  "`openai` 7.57, Responses": "openai Responses",
  "`ai` 7 + `@ai-sdk/openai` 4 (Responses, its default)": "ai, openai",
  "`ai` 7 + `@ai-sdk/openai` 4, `.chat()`": "ai, openai chat",
  "`ai` 7 + `@ai-sdk/openai-compatible` 3": "ai, openai-compatible",
  "`ai` 7 + `@ai-sdk/anthropic` 4": "ai, anthropic",
  "`@anthropic-ai/sdk` 1.14": "anthropic",
  "`@langchain/openai` 1.6": "langchain",
};

/** Cells of the table by row; a dash is none. */
async function rowsOf(): Promise<ReadonlyMap<string, readonly string[]>> {
  const page = await Deno.readTextFile(new URL("docs/api.md", ROOT));
  const rows = page.split("\n").filter((line) => /^\| `[^`]+` \d/.test(line));
  return new Map(rows.map((row) => {
    const [name = "", ...cells] = row.split("|").slice(1, -1).map((cell) => cell.trim());
    return [name, cells];
  }));
}

/** Names of the tests beside this file; one made in a loop over `PROVIDERS` counts for each of them. */
async function testNames(): Promise<readonly string[]> {
  const names: string[] = [];
  for await (const { name: file } of Deno.readDir(new URL(".", import.meta.url))) {
    const source = await Deno.readTextFile(new URL(file, import.meta.url));
    const providers = [...source.matchAll(/^ {2}"([^"]+)": \(origin\) =>/gm)].map(([, name = ""]) => name);
    for (const [, name = ""] of source.matchAll(/^ *Deno\.test\(["`](.+?)["`], /gm)) {
      names.push(...(name.includes("${name}") ? providers.map((one) => name.replace("${name}", one)) : [name]));
    }
  }
  return names;
}

function featuresOf(test: string): readonly string[] {
  const [, features = ""] = /: ([^,]+)/.exec(test) ?? [];
  return features.split(" and ");
}

Deno.test("docs/api.md says yes in a cell where a test names client and feature, and nowhere else", async () => {
  const [rows, tests] = [await rowsOf(), await testNames()];
  assert.deepEqual([...rows.keys()], Object.keys(CLIENTS));
  for (const [row, cells] of rows) {
    const own = tests.filter((test) => test.startsWith(`${CLIENTS[row]}: `)).flatMap(featuresOf);
    const shown = FEATURES.filter((_, i) => cells[i] !== "–");
    assert.deepEqual(FEATURES.filter((feature) => own.includes(feature)), shown, row);
    assert.deepEqual(own.filter((feature) => !FEATURES.some((one) => one === feature)), [], "no column for it");
  }
});

Deno.test("docs/api.md names the versions of clients that are tested", async () => {
  const { imports } = JSON.parse(await Deno.readTextFile(new URL("deno.json", ROOT))) as {
    imports: Readonly<Record<string, string>>;
  };
  for (const row of (await rowsOf()).keys()) {
    for (const [, client = "", shownMajor, shownMinor] of row.matchAll(/`([^`]+)` (\d+)(?:\.(\d+))?/g)) {
      const [major, minor] = imports[client]?.split("@").at(-1)?.split(".") ?? [];
      assert.deepEqual([shownMajor, shownMinor ?? minor], [major, minor], client);
    }
  }
});
