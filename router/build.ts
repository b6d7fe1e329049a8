/** Which build this is: version, commit, protocol, ways to a GPU. Knows files of the tree; starts nothing. */

import project from "../deno.json" with { type: "json" };
import { PROTOCOL_VERSION } from "../workers/protocol.ts";

const ROOT = new URL("../", import.meta.url);
const COMMIT = /^[0-9a-f]{40}$/;

/** What `--version` prints. */
export async function describeBuild(): Promise<string> {
  const dawn = project.imports.webgpu.replace(/^.*@/, "");
  const commit = (await commitOf(ROOT))?.slice(0, 12) ?? "unknown";
  return [
    `tidepool ${project.version}`,
    `commit ${commit}`,
    `protocol ${PROTOCOL_VERSION}`,
    `providers deno ${Deno.version.deno}, dawn ${dawn}`,
  ].join("\n");
}

/** Images and packages carry it in a file; a checkout has it in its git directory. */
async function commitOf(root: URL): Promise<string | undefined> {
  const packed = await read(new URL("COMMIT", root));
  if (packed !== undefined && COMMIT.test(packed)) return packed;
  const head = await read(new URL(".git/HEAD", root));
  const ref = /^ref: (\S+)$/.exec(head ?? "")?.[1];
  if (ref === undefined) return head !== undefined && COMMIT.test(head) ? head : undefined;
  const loose = await read(new URL(`.git/${ref}`, root));
  if (loose !== undefined) return loose;
  const packedRefs = await read(new URL(".git/packed-refs", root));
  return packedRefs?.split("\n").find((line) => line.endsWith(` ${ref}`))?.split(" ")[0];
}

async function read(file: URL): Promise<string | undefined> {
  try {
    return (await Deno.readTextFile(file)).trim();
  } catch (error) {
    // A worktree's `.git` is a file.
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw error;
  }
}
