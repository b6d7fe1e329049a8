/**
 * `worker`: a process around one GPU. Brings the engine and the worker's protocol together.
 * Knows flags; `serve` starts workers by itself, so people seldom need this.
 */

import { Engine, type EngineOptions } from "../../engine/engine.ts";
import { type HostedEngine, hostEngine, type OpenEngine } from "../../workers/engine_host.ts";
import { runWorker, type WorkerOptions } from "../../workers/worker.ts";
import { formatAddress, parseAddress } from "../host/address.ts";
import type { Command, FlagValues } from "../command.ts";
import { UsageError } from "../errors.ts";
import { GPU_FLAG } from "../host/worker_config.ts";
import { Lease } from "./worker_lease.ts";
import { tileCachePath } from "../host/worker_permissions.ts";
import { readSecretFile } from "../host/secret_file.ts";
import { readTlsFiles } from "../host/tls_files.ts";
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
      "address to listen on for the router (serve --join) and the other workers of the group; port 0 takes a free one",
  },
  ...GPU_FLAG,
  announce: {
    kind: "text",
    value: "nats://HOST/GROUP",
    help: "NATS bucket to announce the worker in, for serve --join with the same value",
  },
  advertise: {
    kind: "text",
    value: "HOST:PORT",
    help: "address to announce (default: this host's name and the port listened on)",
  },
  name: {
    kind: "text",
    value: "NAME",
    help: "name of the worker within its group (default: the address announced)",
  },
  drainMs: {
    kind: "integer",
    min: 0,
    max: 3_600_000,
    default: 15_000,
    help: "time the router gets to release the worker when it is asked to stop, in milliseconds",
  },
  tlsCert: {
    kind: "text",
    value: "FILE",
    help: "certificate (PEM) to present; turns TLS on towards router and other workers; needs --tls-key",
  },
  tlsKey: { kind: "text", value: "FILE", help: "private key of the certificate (PEM)" },
  tlsCa: {
    kind: "text",
    value: "FILE",
    help: "certificates (PEM) to verify other workers by (default: --tls-cert)",
  },
  tlsName: {
    kind: "text",
    value: "NAME",
    help: "name expected in the certificates of other workers (default: the host dialled)",
  },
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
    const lease = new Lease(values, terminal);
    const code = await runWorker({
      open: (load, onProgress) =>
        openWarm(
          { ...load, gpu: values.gpu, log: (line) => terminal.error(line), tileCache: tileCachePath() },
          onProgress,
        ),
      onStep: traceStep,
      // stdout belongs to the announcement.
      log: (line) => terminal.error(line),
      drainMs: values.drainMs,
      onLoaded: (info) => lease.loaded(info),
      onStopping: () => lease.end(),
      ...await place(values, terminal, (address) => lease.begin(address)),
    });
    await lease.end();
    return code;
  },
};

/** An engine whose first step is as fast as the second. */
async function openWarm(
  options: EngineOptions,
  onProgress: Parameters<OpenEngine>[1],
): Promise<HostedEngine> {
  const startMs = performance.now();
  const engine = await Engine.open(options, onProgress);
  try {
    const loadedMs = performance.now();
    await engine.warmUp();
    const [load, steps] = [loadedMs - startMs, performance.now() - loadedMs].map((ms) => (ms / 1000).toFixed(1));
    const { size } = engine.commands.kernels;
    options.log?.(`Loaded the model in ${load} s; tiles and first steps took ${steps} s, ${size} kernels compiled`);
    return hostEngine(engine);
  } catch (error) {
    await engine.close();
    throw error;
  }
}

async function place(
  values: FlagValues<typeof flags>,
  terminal: Terminal,
  onListen: (address: { readonly hostname: string; readonly port: number }) => void,
): Promise<Pick<WorkerOptions, "spawned" | "listen" | "secret" | "tls" | "onListen">> {
  if (values.spawned) return { spawned: true };
  return {
    spawned: false,
    listen: parseAddress(values.listen),
    onListen: (address) => {
      terminal.line(`Worker listens on ${formatAddress(address)}`);
      onListen(address);
    },
    ...(values.secretFile === undefined ? {} : { secret: await readSecretFile(values.secretFile) }),
    ...await tls(values),
  };
}

async function tls({ tlsCert, tlsKey, tlsCa, tlsName }: FlagValues<typeof flags>): Promise<Pick<WorkerOptions, "tls">> {
  if (tlsCert === undefined && tlsKey === undefined) {
    if ((tlsCa ?? tlsName) === undefined) return {};
    throw new UsageError("Cannot use --tls-ca or --tls-name: without --tls-cert the worker speaks in clear text");
  }
  if (tlsCert === undefined || tlsKey === undefined) {
    throw new UsageError("Cannot speak TLS: --tls-cert and --tls-key are needed, given only one of them");
  }
  const files = await readTlsFiles({ cert: tlsCert, key: tlsKey });
  const ca = tlsCa === undefined ? files.cert : await Deno.readTextFile(tlsCa);
  return { tls: { ...files, ca, ...(tlsName === undefined ? {} : { name: tlsName }) } };
}
