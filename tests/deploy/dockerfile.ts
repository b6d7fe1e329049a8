/** The instructions of our Dockerfile, as far as it uses them. Knows its text; runs nothing. */

/** One instruction, its lines joined. */
export interface Instruction {
  readonly word: string;
  readonly text: string;
}

/** What is between one `FROM` and the next. */
export interface DockerStage {
  readonly name: string;
  readonly from: string;
  readonly instructions: readonly Instruction[];
}

/** @throws {Error} when it does not begin with `FROM … AS …` */
export function readDockerfile(text: string): readonly DockerStage[] {
  const lines = text.split("\n").filter((line) => !/^\s*#|^\s*$/.test(line)).join("\n").replaceAll("\\\n", " ").split(
    "\n",
  );
  const stages: (DockerStage & { instructions: Instruction[] })[] = [];
  for (const line of lines) {
    const [, word = "", rest = ""] = /^([A-Z]+) (.*)$/.exec(line) ?? [];
    const [, from, name] = word === "FROM" ? /^(\S+) AS (\S+)$/.exec(rest) ?? [] : [];
    if (from !== undefined && name !== undefined) stages.push({ name, from, instructions: [] });
    else if (stages.length === 0 || word === "FROM" || word === "") throw new Error(`Cannot read Dockerfile: ${line}`);
    else stages.at(-1)?.instructions.push({ word, text: rest.replaceAll(/\s+/g, " ").trim() });
  }
  return stages;
}

/** What `ENV` and `ARG` set. */
export function assignments(text: string): Readonly<Record<string, string>> {
  return Object.fromEntries(
    text.split(" ").map((pair) => {
      const [name = "", ...value] = pair.split("=");
      return [name, value.join("=")];
    }),
  );
}
