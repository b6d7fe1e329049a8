/**
 * `serve`: the service in a terminal: what it prints, which signals it handles, how it exits.
 * Knows people and signals; the service itself is `service.ts`.
 */

import type { Command, FlagValues } from "../command.ts";
import { configFromFlags, SERVICE_FLAGS } from "../config.ts";
import type { ServedModel, Service } from "../service.ts";
import { startService } from "../start_service.ts";
import type { Terminal } from "../terminal.ts";
import { ensureVulkanDriver } from "../host/vulkan_driver.ts";

/** What shells report for a program ended by SIGINT. */
const CUT_SHORT = 130;

export const command: Command<typeof SERVICE_FLAGS> = {
  summary: "Serve a model over an OpenAI-compatible API",
  flags: SERVICE_FLAGS,
  async run(values: FlagValues<typeof SERVICE_FLAGS>, terminal: Terminal): Promise<number> {
    // A router whose workers run elsewhere needs no GPU.
    if (values.join === undefined) await ensureVulkanDriver((line) => terminal.error(line));
    const signals = new StopSignals();
    try {
      const service = await startService(configFromFlags(values), {
        log: (line) => terminal.line(line),
        onProgress: (fraction) => terminal.progress("Loading weights", fraction),
      });
      return await serveUntilStopped(service, terminal, {
        signals,
        scheme: values.tlsCert === undefined ? "http" : "https",
      });
    } finally {
      signals.close();
    }
  },
};

async function serveUntilStopped(
  service: Service,
  terminal: Terminal,
  { signals, scheme }: { readonly signals: StopSignals; readonly scheme: string },
): Promise<number> {
  service.ready.then(
    (model) => greeting(service, model, scheme).forEach((line) => terminal.line(line)),
    () => "reported below, as the reason why it is broken",
  );
  const end = await Promise.race([signals.first, service.broken]);
  if (end !== STOPPED) {
    await service.close();
    terminal.error(end);
    return 1;
  }
  terminal.error("Finishing what runs. Ctrl-C again ends it at once.");
  let code = 0;
  const cut = signals.second.then(() => {
    code = CUT_SHORT;
    return service.close();
  });
  await Promise.race([service.drain(), cut]);
  return code;
}

function greeting({ address: { hostname, port } }: Service, model: ServedModel, scheme: string): readonly string[] {
  // An address that means all of them is none to connect to.
  const reachable = ["0.0.0.0", "::"].includes(hostname)
    ? "127.0.0.1"
    : hostname.includes(":")
    ? `[${hostname}]`
    : hostname;
  const copied = model.copiedContextTokens;
  const url = `${scheme}://${reachable}:${port}`;
  const body = { model: model.id, messages: [{ role: "user", content: "Hello" }], stream: true };
  return [
    `Tidepool serves ${model.id} at ${url}/v1`,
    `  parameters   ${(model.parameters / 1e6).toFixed(1)} million`,
    ...workerLines(model),
    `  KV capacity  ${count(model.kvTokens)} tokens, the longest context ${count(model.contextTokens)}`,
    ...(copied === undefined
      ? []
      : [`  copies       contexts up to ${count(copied)} tokens on every worker (--copies)`]),
    "Try it:",
    `  curl -N ${url}/v1/chat/completions -H 'content-type: application/json' -d '${JSON.stringify(body)}'`,
  ];
}

function workerLines({ workers, software }: ServedModel): readonly string[] {
  return workers.map(({ adapter, kvTokens, place, group }, i) => {
    const index = workers.slice(0, i).filter((before) => before.group === group).length;
    const number = group === undefined ? String(index) : `${group}.${index}`;
    const name = `  ${workers.length === 1 ? "worker" : `worker ${number}`}`.padEnd(15);
    const where = place === undefined ? "" : `, ${place}`;
    return `${name}${adapter}${software ? " (software: slow)" : ""}${where}, ${count(kvTokens)} KV tokens`;
  });
}

function count(tokens: number): string {
  return tokens.toLocaleString("en");
}

const STOPPED = Symbol("stopped");

/** One Ctrl-C may come twice: from the terminal, and from a task runner that passes it on. */
const ECHO_MS = 1000;

/** SIGINT and SIGTERM, the first and the second; `close` must be called. */
class StopSignals {
  readonly #first = Promise.withResolvers<typeof STOPPED>();
  readonly #second = Promise.withResolvers<typeof STOPPED>();
  readonly #names: readonly Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM"];
  #firstAtMs: number | undefined;
  readonly #onSignal = () => {
    const nowMs = performance.now();
    this.#firstAtMs ??= nowMs;
    this.#first.resolve(STOPPED);
    if (nowMs - this.#firstAtMs > ECHO_MS) this.#second.resolve(STOPPED);
  };

  constructor() {
    for (const name of this.#names) Deno.addSignalListener(name, this.#onSignal);
  }

  get first(): Promise<typeof STOPPED> {
    return this.#first.promise;
  }

  get second(): Promise<typeof STOPPED> {
    return this.#second.promise;
  }

  close(): void {
    for (const name of this.#names) Deno.removeSignalListener(name, this.#onSignal);
  }
}
