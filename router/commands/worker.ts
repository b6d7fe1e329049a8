/**
 * `worker`: a process around one GPU. Brings the engine and the worker's protocol together.
 * Knows flags; `serve` starts workers by itself, so people seldom need this.
 */

import { Engine } from "../../engine/engine.ts";
import { hostEngine } from "../../workers/engine_host.ts";
import { runWorker, type WorkerOptions } from "../../workers/worker.ts";
import { type Command, type FlagValues, UsageError } from "../command_line.ts";
import { traceStep } from "../telemetry.ts";
import type { Terminal } from "../terminal.ts";
import { ensureVulkanDriver } from "../vulkan_driver.ts";

const flags = {
  spawned: { kind: "switch", help: "started by a router: secret on stdin, any port, announced on stdout" },
  host: { kind: "text", value: "ADDRESS", default: "127.0.0.1", help: "address to listen on" },
  port: { kind: "integer", min: 0, max: 65535, default: 8100, help: "port to listen on; 0 takes a free one" },
  secretFile: {
    kind: "text",
    value: "FILE",
    help: "file whose first line is the secret shared with the router; needed beyond loopback",
  },
} as const;

export const command: Command<typeof flags> = {
  summary: "Run one worker: a process around one GPU that waits for its router",
  flags,
  async run(values: FlagValues<typeof flags>, terminal: Terminal): Promise<number> {
    await ensureVulkanDriver((line) => terminal.error(line));
    return await runWorker({
      open: async (load, onProgress) => hostEngine(await Engine.open(load, onProgress)),
      onStep: traceStep,
      // stdout belongs to the announcement.
      log: (line) => terminal.error(line),
      ...await place(values, terminal),
    });
  },
};

async function place(
  values: FlagValues<typeof flags>,
  terminal: Terminal,
): Promise<Pick<WorkerOptions, "spawned" | "listen" | "secret" | "onListen">> {
  if (values.spawned) return { spawned: true };
  return {
    spawned: false,
    listen: { hostname: values.host, port: values.port },
    onListen: ({ hostname, port }) => terminal.line(`Worker listens on ${hostname}:${port}`),
    ...(values.secretFile === undefined ? {} : { secret: await readSecret(values.secretFile) }),
  };
}

async function readSecret(path: string): Promise<string> {
  try {
    const [secret = ""] = (await Deno.readTextFile(path)).split("\n");
    return secret.trim();
  } catch (error) {
    if (error instanceof Error) throw new UsageError(`Cannot read --secret-file: ${error.message}`);
    throw error;
  }
}
