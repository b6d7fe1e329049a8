/**
 * Tidepool: long-context language models from the GPUs people have, over an OpenAI-compatible API.
 * This file is the library's contents page and, run as a program, the command line.
 *
 * @module
 */

import { type CommandTable, runCommandLine } from "./router/command_line.ts";
import { processTerminal } from "./router/terminal.ts";

const COMMANDS: CommandTable = {
  doctor: () => import("./router/commands/doctor.ts"),
};

if (import.meta.main) {
  const { default: project } = await import("./deno.json", { with: { type: "json" } });
  const line = {
    commands: COMMANDS,
    args: Deno.args,
    env: Deno.env.toObject(),
    version: project.version,
    denoVersion: Deno.version.deno,
  };
  Deno.exit(await runCommandLine(line, processTerminal()));
}
