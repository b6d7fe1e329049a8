/** What `--help` prints: commands, and flags with their defaults, within the width of the terminal. */

import { type Command, type CommandTable, type Flag, flagName, variableName } from "./command.ts";

/** Wider left columns would leave explanations no room: their line begins below. */
const MAX_LEFT = 28;
/** Narrower explanations would be one word a line. */
const MIN_RIGHT = 30;

/** What `--help` alone prints. */
export async function overview(commands: CommandTable, columns: number): Promise<string> {
  const rows = await Promise.all(
    Object.entries(commands).map(async ([name, load]) => [name, (await load()).command.summary] as const),
  );
  return [
    "Usage: deno run -A mod.ts <command> [flags]",
    "",
    ...table(rows, columns),
    "",
    ...wrap("Each command explains its flags: <command> --help. The version: --version.", columns),
  ].join("\n");
}

/** What `<command> --help` prints: every flag with its default. */
export function helpText(name: string, command: Command, columns: number): string {
  const rows = Object.entries(command.flags).map(([key, flag]) =>
    [`--${flagName(key)}${placeholder(flag)}`, `${flag.help}${defaultNote(flag)}`] as const
  );
  const example = Object.keys(command.flags)[0];
  const variables = example === undefined
    ? ""
    : `Flags can be set in the environment too: --${flagName(example)} as ${variableName(name, example)}.`;
  const argument = command.argument === undefined ? "" : ` ${command.argument.toUpperCase()}`;
  return [
    `Usage: deno run -A mod.ts ${name}${argument} [flags]`,
    "",
    ...wrap(command.summary, columns),
    "",
    ...table(rows, columns),
    "",
    ...wrap(variables, columns),
  ].join("\n").trimEnd();
}

function placeholder(flag: Flag): string {
  if (flag.kind === "switch") return "";
  if (flag.kind === "text") return ` ${flag.value}`;
  if (flag.kind === "choice") return ` ${flag.choices.join("|")}`;
  if (flag.kind === "number") return " X";
  const one = flag.or === undefined ? "N" : `N|${flag.or}`;
  return flag.kind === "integer" ? ` ${one}` : ` ${one},…`;
}

function defaultNote(flag: Flag): string {
  if (flag.kind === "switch" || flag.default === undefined) return "";
  const shown = flag.kind === "text" ? flag.shownDefault : undefined;
  return ` (default: ${shown ?? flag.default})`;
}

function table(rows: readonly (readonly [string, string])[], columns: number): readonly string[] {
  const width = Math.min(MAX_LEFT, Math.max(...rows.map(([left]) => left.length)));
  const indent = " ".repeat(width + 4);
  return rows.flatMap(([left, right]) => {
    const lines = wrap(right, Math.max(MIN_RIGHT, columns - indent.length));
    if (left.length > width) return [`  ${left}`, ...lines.map((line) => indent + line)];
    return lines.map((line, i) => i === 0 ? `  ${left.padEnd(width)}  ${line}` : indent + line);
  });
}

/** @returns lines of at most so many characters, where no single word is longer */
function wrap(text: string, columns: number): readonly string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > columns) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}
