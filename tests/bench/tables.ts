/**
 * `deno task bench:tables DIR [--page FILE]`: what `bench:all --out DIR` measured, as the tables of docs/benchmarks.md; with `--page`
 * in the place of those that the page has.
 */

import { parseArgs } from "node:util";
import { UsageError } from "../../router/errors.ts";
import { processTerminal } from "../../router/terminal.ts";
import { pageTables, withTables } from "./page_tables.ts";
import { readFigures } from "./read_figures.ts";

const { values: { page }, positionals: [directory] } = parseArgs({
  options: {
    page: { type: "string" },
  },
  allowPositionals: true,
});
if (directory === undefined) throw new UsageError("Cannot print tables: needs the folder of bench:all --out");
const tables = pageTables(await readFigures(directory));
if (page !== undefined) await Deno.writeTextFile(page, withTables(await Deno.readTextFile(page), tables));
const terminal = processTerminal();
for (const line of tables) terminal.line(line);
