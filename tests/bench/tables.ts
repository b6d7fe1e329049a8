/**
 * `deno task bench:tables DIR [--write]`: what `bench:all --out DIR` measured, as the tables of docs/benchmarks.md and
 * docs/kernels.md; with `--write` in the place of those that the pages have.
 */

import { parseArgs } from "node:util";
import { UsageError } from "../../router/errors.ts";
import { processTerminal } from "../../router/terminal.ts";
import { kernelTables, pageTables, withTables } from "./page_tables.ts";
import { readFigures } from "./read_figures.ts";

const { values: { write }, positionals: [directory] } = parseArgs({
  options: {
    write: { type: "boolean" },
  },
  allowPositionals: true,
});
if (directory === undefined) throw new UsageError("Cannot print tables: needs the folder of bench:all --out");
const all = await readFigures(directory);
const terminal = processTerminal();
for (const [name, tables] of [["benchmarks", pageTables(all)], ["kernels", kernelTables(all)]] as const) {
  const page = new URL(`../../docs/${name}.md`, import.meta.url);
  if (write) await Deno.writeTextFile(page, withTables(await Deno.readTextFile(page), tables));
  for (const line of tables) terminal.line(line);
}
