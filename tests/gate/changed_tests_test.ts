import assert from "node:assert/strict";
import { dirname } from "node:path";
import { pathToFileURL } from "node:url";
import { changedTests, testsOf } from "./changed_tests.ts";

Deno.test("testsOf() finds the test of a file where the tree of tests mirrors it", () => {
  assert.deepEqual(testsOf("engine/kv/sequences.ts"), ["tests/engine/kv/sequences_test.ts"]);
  assert.deepEqual(testsOf("tests/engine/fit_test.ts"), ["tests/engine/fit_test.ts"]);
  for (const path of ["tests/support/until.ts", "README.md"]) assert.deepEqual(testsOf(path), []);
});

Deno.test("changedTests() gives the tests of what is not committed, and nothing without a repository", async () => {
  const directory = await Deno.makeTempDir();
  const root = pathToFileURL(`${directory}/`);
  try {
    const write = async (path: string, text: string) => {
      await Deno.mkdir(dirname(`${directory}/${path}`), { recursive: true });
      await Deno.writeTextFile(`${directory}/${path}`, text);
    };
    for (const name of ["a", "b"]) {
      await write(`engine/${name}.ts`, "");
      await write(`tests/engine/${name}_test.ts`, "");
    }
    assert.deepEqual(await changedTests(root), [], "there is no repository yet");
    await git(directory, "init", "--quiet");
    await git(directory, "add", ".");
    await git(directory, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "t");
    assert.deepEqual(await changedTests(root), []);
    await write("engine/a.ts", "changed");
    await write("engine/untested.ts", "");
    await write("tests/new file_test.ts", "");
    assert.deepEqual(await changedTests(root), ["tests/engine/a_test.ts", "tests/new file_test.ts"]);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

async function git(directory: string, ...args: readonly string[]): Promise<void> {
  const { code, stderr } = await new Deno.Command("git", { args: [...args], cwd: directory }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
}
