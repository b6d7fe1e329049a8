/** Temporary directories that look like models: whole fixtures with changes, or just the files a test names. */

/** The checked-in models and data with known answers, ends in a slash. */
export const FIXTURES = new URL("../fixtures/", import.meta.url).pathname;

/** Folders of the small models with recorded logits, one a family or variant. */
export const FAMILIES = [
  "llama",
  "llama-linear",
  "llama-rope3",
  "mistral",
  "mistral-sliding",
  "qwen2",
  "qwen2-yarn",
  "qwen3",
  "phi3",
  "olmo3",
  "gemma3",
] as const;

/** The embedded default model. */
export const TIDE = new URL("../../deploy/models/tide-10m", import.meta.url).pathname;

/** Contents of a file: bytes, text, or anything else as JSON; undefined: the file is left out. */
export type Contents = Uint8Array | string | object | undefined;

/** Runs `body` in a directory that holds the given files, and removes it. */
export async function withFiles(
  files: Readonly<Record<string, Contents>>,
  body: (directory: string) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "tidepool-" });
  try {
    for (const [name, contents] of Object.entries(files)) {
      const path = `${directory}/${name}`;
      if (contents instanceof Uint8Array) await Deno.writeFile(path, contents);
      else if (contents !== undefined) {
        await Deno.writeTextFile(path, typeof contents === "string" ? contents : JSON.stringify(contents));
      }
    }
    await body(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Runs `body` in a copy of a fixture folder in which some files are replaced or left out. */
export async function withChangedFixture(
  fixture: string,
  changes: Readonly<Record<string, Contents>>,
  body: (directory: string) => Promise<void>,
): Promise<void> {
  const files: Record<string, Contents> = {};
  for await (const { name } of Deno.readDir(`${FIXTURES}${fixture}`)) {
    files[name] = await Deno.readFile(`${FIXTURES}${fixture}/${name}`);
  }
  await withFiles({ ...files, ...changes }, body);
}

/** A fixture's JSON file. */
export async function readFixture<T>(name: string): Promise<T> {
  return JSON.parse(await Deno.readTextFile(`${FIXTURES}${name}`));
}
