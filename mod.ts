/**
 * Tidepool serves long-context language models from the GPUs people have, over an OpenAI-compatible API.
 * This file is the library's contents page and, run as a program, the command line.
 *
 * @module
 */

import type { CommandTable } from "./router/command.ts";
import { runCommandLine } from "./router/command_line.ts";
import { processTerminal } from "./router/terminal.ts";

// A service: HTTP, scheduler and worker, started and ended together.
export type { ServedModel, ServedWorker, Service, ServiceOptions } from "./router/service.ts";
export { startService } from "./router/start_service.ts";

// What an operator decides about it.
export type { AttentionConfig } from "./router/attention_config.ts";
export type { LogFormat, ServiceConfig } from "./router/config.ts";

/** Command → its module, which is loaded only when it runs. */
const COMMANDS: CommandTable = {
  serve: () => import("./router/commands/serve.ts"),
  worker: () => import("./router/commands/worker.ts"),
  pull: () => import("./router/commands/pull.ts"),
  chat: () => import("./router/commands/chat/chat.ts"),
  eval: () => import("./router/commands/eval/eval.ts"),
  calibrate: () => import("./router/commands/calibrate.ts"),
  bench: () => import("./router/commands/bench/bench.ts"),
  doctor: () => import("./router/commands/doctor.ts"),
};

if (import.meta.main) {
  const line = {
    commands: COMMANDS,
    args: Deno.args,
    env: Deno.env.toObject(),
    about: async () => (await import("./router/build.ts")).describeBuild(),
    denoVersion: Deno.version.deno,
  };
  Deno.exit(await runCommandLine(line, processTerminal()));
}
