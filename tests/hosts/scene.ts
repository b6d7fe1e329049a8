/**
 * A router, workers, a name server and NATS on hosts of their own, with the permissions of `deploy/tidepool.sh`. Knows how
 * to start them, to break them and to wait for the group; what the outcome should be is for tests.
 */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { HostProcess } from "./host_process.ts";
import { Network } from "./network.ts";
import type { SlowLink } from "./slow_link.ts";
import type { Slowness } from "./slow_queue.ts";

/** How the router finds its workers. */
export type Found = "dns" | "nats";

const PROGRAM = fileURLToPath(new URL("../../deploy/tidepool.sh", import.meta.url));
const NAME_SERVER = fileURLToPath(new URL("name_server.ts", import.meta.url));
const SERVICE = "workers.test";
const [ROUTER, SERVICES] = [1, 53];
const ENV = { TIDEPOOL_DENO: Deno.execPath(), XDG_RUNTIME_DIR: "/tmp", NO_COLOR: "1" };

interface Ready {
  readonly status: string;
  readonly epoch?: number;
  readonly workers?: readonly unknown[];
  readonly "max_context_tokens"?: number;
}

/** See the top of this file; for `await using` */
export class Scene implements AsyncDisposable {
  readonly network: Network;
  readonly workers: HostProcess[] = [];
  readonly url: string;
  readonly #found: Found;
  readonly #directory: string;
  readonly #resources = new AsyncDisposableStack();
  /** Numbers of the workers that the name stands for. */
  readonly #named = new Set<number>();
  #router: HostProcess | undefined;
  #nats: HostProcess | undefined;

  private constructor(network: Network, found: Found, directory: string) {
    this.network = network;
    this.#found = found;
    this.#directory = directory;
    this.url = `http://${network.address(ROUTER)}:8000`;
  }

  static async open(found: Found): Promise<Scene> {
    const network = await Network.open();
    const scene = new Scene(network, found, await Deno.makeTempDir());
    scene.#resources.defer(() => Deno.remove(scene.#directory, { recursive: true }));
    scene.#resources.use(network);
    await Deno.writeTextFile(`${scene.#directory}/secret`, "the secret of several hosts\n");
    await scene.#name();
    await network.add("services", SERVICES);
    await network.add("router", ROUTER, network.address(SERVICES));
    if (found === "nats") scene.startNats();
    else {scene.#run("services", [
        Deno.execPath(),
        "run",
        "--quiet",
        "-A",
        "--no-check",
        NAME_SERVER,
        "0.0.0.0",
        `${scene.#directory}/names`,
      ]);}
    return scene;
  }

  startNats(): void {
    const store = `${this.#directory}/nats-${performance.now()}`;
    this.#nats = this.#run("services", ["nats-server", "--jetstream", "--store_dir", store]);
  }

  /** Ends the server for good; what it stored is lost. */
  async stopNats(): Promise<void> {
    await this.#nats?.[Symbol.asyncDispose]();
  }

  /** Starts a router that finds workers. */
  startRouter(...flags: readonly string[]): void {
    const join = this.#found === "dns" ? `dns:${SERVICE}:8100` : this.#bucket;
    const serve = ["serve", "--host", "0.0.0.0", "--random", "tiny", "--kv-tokens", "1024", "--join", join];
    this.#router = this.#run("router", [PROGRAM, ...serve, "--secret-file", `${this.#directory}/secret`, ...flags]);
  }

  /** Starts a worker on a host of its own, which is found from now on. */
  async addWorker(): Promise<void> {
    const number = 11 + this.workers.length;
    const name = `gpu${number}`;
    await this.network.add(name, number);
    const worker = [
      "worker",
      "--listen",
      "0.0.0.0:8100",
      "--gpu",
      "deno",
      "--secret-file",
      `${this.#directory}/secret`,
    ];
    const announce = [
      "--announce",
      this.#bucket,
      "--name",
      name,
      "--advertise",
      `${this.network.address(number)}:8100`,
    ];
    this.workers.push(this.#run(name, [PROGRAM, ...worker, ...(this.#found === "nats" ? announce : [])]));
    this.#named.add(number);
    await this.#name();
  }

  /** Drains the newest worker for good, and takes its name away once it has ended. @returns how long it took, in milliseconds */
  async removeWorker(): Promise<number> {
    const startedMs = performance.now();
    const worker = this.workers.pop() ?? assert.fail("there is no worker");
    await worker.stop();
    this.#named.delete(11 + this.workers.length);
    await this.#name();
    return performance.now() - startedMs;
  }

  kill(worker: number, signal: Deno.Signal): void {
    this.workers[worker]?.kill(signal);
  }

  async link(worker: number, state: "up" | "down"): Promise<void> {
    await this.network.link(`gpu${11 + worker}`, state);
  }

  /** Slows a worker's link down until that is disposed of. */
  async slow(worker: number, slowness: Slowness): Promise<SlowLink> {
    return await this.network.slow(`gpu${11 + worker}`, slowness);
  }

  /** To a worker's host and back. */
  async roundTripMs(worker: number): Promise<number> {
    return await this.network.roundTripMs(11 + worker);
  }

  async ready(): Promise<Ready> {
    try {
      return await (await fetch(`${this.url}/ready`, { signal: AbortSignal.timeout(2000) })).json();
    } catch {
      // It does not listen yet.
      return { status: "absent" };
    }
  }

  /** Waits until what `/ready` says is so. @returns how long it took, in milliseconds */
  async until(condition: (ready: Ready) => boolean, deadlineMs = 60_000): Promise<number> {
    const startedMs = performance.now();
    for (;;) {
      const ready = await this.ready();
      if (condition(ready)) return performance.now() - startedMs;
      if (performance.now() - startedMs > deadlineMs) {
        assert.fail(
          `${condition} is not so after ${deadlineMs} ms: ${JSON.stringify(ready)}\n${this.#router?.lines.join("\n")}`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
  }

  /** Waits until the group is ready with so many workers, under an epoch after the one given. */
  whole(workers: number, epoch = 0, deadlineMs = 60_000): Promise<number> {
    return this.until((ready) => ready.workers?.length === workers && (ready.epoch ?? 0) > epoch, deadlineMs);
  }

  async epoch(): Promise<number> {
    return (await this.ready()).epoch ?? assert.fail("the group is not ready");
  }

  /** Tokens of the longest context that the group can hold. */
  async capacity(): Promise<number> {
    return (await this.ready()).max_context_tokens ?? assert.fail("the group is not ready");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources.disposeAsync();
  }

  get #bucket(): string {
    return `nats://${this.network.address(SERVICES)}:4222/hosts`;
  }

  #run(host: string, command: readonly string[]): HostProcess {
    const process = new HostProcess([...this.network.on(host), ...command], ENV);
    this.#resources.use(process);
    return process;
  }

  async #name(): Promise<void> {
    const addresses = [...this.#named].map((number) => this.network.address(number));
    await Deno.writeTextFile(`${this.#directory}/names.new`, JSON.stringify({ [SERVICE]: addresses }));
    await Deno.rename(`${this.#directory}/names.new`, `${this.#directory}/names`);
  }
}
