/** What a secret file must hold. */

import assert from "node:assert/strict";
import { readSecretFile } from "../../../router/host/secret_file.ts";
import { withFiles } from "../../support/model_directory.ts";

Deno.test("readSecretFile() takes the first line, and refuses a short one or a missing file in one line", async () => {
  await withFiles({ good: "0123456789abcdef \r\nmore\n", short: "hunter2\n", empty: "" }, async (directory) => {
    assert.equal(await readSecretFile(`${directory}/good`), "0123456789abcdef");
    await assert.rejects(readSecretFile(`${directory}/short`), {
      code: "invalid_request",
      message: "Cannot use --secret-file: its first line has 7 characters, at least 16 are needed",
    });
    await assert.rejects(readSecretFile(`${directory}/empty`), /has 0 characters/);
    await assert.rejects(readSecretFile(`${directory}/missing`), /^.*Cannot read --secret-file: [^\n]*missing[^\n]*$/);
  });
});
