/** The npm package and the formula for it: complete, and started by Node with the Deno that it depends on. */

import assert from "node:assert/strict";
import project from "../../deno.json" with { type: "json" };
import { buildPackage } from "../../deploy/npm/build.ts";
import { isInstalled } from "../support/is_installed.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";

const HAS_NODE = await isInstalled("node");

Deno.test({
  name: `npx tidepool runs the program of its version${HAS_NODE ? "" : " (left out: there is no node)"}`,
  ignore: !HAS_NODE,
  async fn() {
    const directory = await Deno.makeTempDir();
    try {
      const installed = `${directory}/node_modules/tidepool`;
      await buildPackage(installed, COMMIT);
      const { version, dependencies } = JSON.parse(await Deno.readTextFile(`${installed}/package.json`));
      assert.equal(version, project.version);
      assert.match(dependencies.deno, /^\d+\.\d+\.\d+$/);
      // As its package lies there once it is installed.
      const deno = `${directory}/node_modules/deno`;
      await Deno.mkdir(deno);
      await Deno.writeTextFile(`${deno}/package.json`, '{ "name": "deno" }');
      await Deno.symlink(Deno.execPath(), `${deno}/deno`);
      const run = (...args: string[]) =>
        new Deno.Command("node", {
          args: [`${installed}/bin/tidepool.mjs`, ...args],
          env: { TIDEPOOL_HOME: `${directory}/home`, NO_COLOR: "1" },
        }).output();
      const printed = await run("--version");
      const text = new TextDecoder().decode(printed.stdout);
      assert.match(
        text,
        new RegExp(`^tidepool ${version}\ncommit ${COMMIT.slice(0, 12)}\nprotocol \\d+\nproviders deno `),
      );
      assert.deepEqual([...Deno.readDirSync(`${directory}/home`)].map(({ name }) => name), [
        `${version}-${COMMIT.slice(0, 12)}`,
      ]);
      assert.equal((await run("nothing")).code, 2, "its end is the program's end");
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
});

Deno.test("the formula for Homebrew installs the package of this version", async () => {
  const formula = await Deno.readTextFile(new URL("../../deploy/homebrew/tidepool.rb", import.meta.url));
  assert.equal(/^ {2}url ".*\/tidepool-(.*)\.tgz"$/m.exec(formula)?.[1], project.version);
});
