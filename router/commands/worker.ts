/**
 * `worker`: a process around one GPU. Brings the engine and the worker's protocol together.
 * Knows flags; `serve` starts workers by itself, so people seldom need this.
 */

import { Engine, type EngineOptions } from "../../engine/engine.ts";
import { type EngineHandle, hostEngine, type OpenEngine } from "../../workers/engine_host.ts";
import { runWorker, type WorkerOptions } from "../../workers/worker.ts";
import { formatAddress, parseAddress } from "../host/address.ts";
import type { Command, FlagValues } from "../command_line.ts";
import { GPU_FLAG } from "../host/worker_config.ts";
import { readSecretFile } from "../host/secret_file.ts";
import { traceStep } from "../telemetry/telemetry.ts";
import type { Terminal } from "../terminal.ts";
import { ensureVulkanDriver } from "../host/vulkan_driver.ts";

const flags = {
  spawned: { kind: "switch", help: "started by a router: secret on stdin, any port, announced on stdout" },
  listen: {
    kind: "text",
    value: "HOST:PORT",
    default: "127.0.0.1:8100",
    help:
      "address to listen on, where serve --join finds it and other workers of its group do; port 0 takes a free one",
  },
  ...GPU_FLAG,
  secretFile: {
    kind: "text",
    value: "FILE",
    help: "file whose first line is the secret shared with the router and other workers; needed beyond loopback",
  },
} as const;

export const command: Command<typeof flags> = {
  summary: "Run one worker: a process around one GPU that waits for its router",
  flags,
  async run(values: FlagValues<typeof flags>, terminal: Terminal): Promise<number> {
    // The router has made sure of it before it spawned a worker, which may not install anything.
    if (!values.spawned) await ensureVulkanDriver((line) => terminal.error(line));
    return await runWorker({
      open: (load, onProgress) =>
        openWarm({ ...load, gpu: values.gpu, log: (line) => terminal.error(line) }, onProgress),
      onStep: traceStep,
      // stdout belongs to the announcement.
      log: (line) => terminal.error(line),
      ...await place(values, terminal),
    });
  },
};

/** An engine whose first step is as fast as the second. */
async function openWarm(
  options: EngineOptions,
  onProgress: Parameters<OpenEngine>[1],
): Promise<EngineHandle> {
  const engine = await Engine.open(options, onProgress);
  try {
    await engine.warmUp();
    return hostEngine(engine);
  } catch (error) {
    await engine.close();
    throw error;
  }
}

async function place(
  values: FlagValues<typeof flags>,
  terminal: Terminal,
): Promise<Pick<WorkerOptions, "spawned" | "listen" | "secret" | "onListen">> {
  if (values.spawned) return { spawned: true };
  return {
    spawned: false,
    listen: parseAddress(values.listen),
    onListen: (address) => terminal.line(`Worker listens on ${formatAddress(address)}`),
    ...(values.secretFile === undefined ? {} : { secret: await readSecretFile(values.secretFile) }),
  };
}
