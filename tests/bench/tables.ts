/** `deno task bench:tables DIR`: what `bench:all --out DIR` measured, as the tables of docs/benchmarks.md. */

import { UsageError } from "../../router/errors.ts";
import { processTerminal } from "../../router/terminal.ts";
import { pageTables } from "./page_tables.ts";
import { readFigures } from "./read_figures.ts";

const [directory] = Deno.args;
if (directory === undefined) throw new UsageError("Cannot print tables: needs the folder of bench:all --out");
const terminal = processTerminal();
for (const line of pageTables(await readFigures(directory))) terminal.line(line);
