/**
 * Several hosts on one machine: network namespaces on a bridge, each with an address of its own; needs root and `ip`. Knows
 * links and addresses; what runs on a host is for others.
 */

import { ip } from "./ip.ts";
import { slowDown, type SlowLink } from "./slow_link.ts";
import type { Slowness } from "./slow_queue.ts";

/** Whether this machine can have such hosts; a reason if not. */
export async function whyNoHosts(): Promise<string | undefined> {
  if (Deno.build.os !== "linux" || Deno.uid() !== 0) return "needs root on Linux";
  try {
    const { success } = await new Deno.Command("ip", { args: ["netns", "list"], stdout: "null", stderr: "null" })
      .output();
    return success ? undefined : "network namespaces are not to be had";
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "needs ip (iproute2)";
    throw error;
  }
}

const SWITCH = "switch";
const BRIDGE = "bridge0";
const DEVICE = "eth0";
/** Of this process's own host. */
const HERE = 250;

const ROUND_TRIPS = 5;
/** Discard: nothing listens there. */
const CLOSED_PORT = 9;

/** Made so far: a namespace that was deleted lives on until its last process has ended. */
let networks = 0;

/** See the top of this file; for `await using` */
export class Network implements AsyncDisposable {
  /** Tells this network's names from those of others on the machine. */
  readonly #id = `tp${(Deno.pid % 46656).toString(36)}${(networks++).toString(36)}`;
  readonly #subnet = `10.213.${1 + Deno.pid % 250}`;
  readonly #hosts = new Set<string>();
  #links = 0;

  /** Makes the bridge, and joins this process's own host to it. */
  static async open(): Promise<Network> {
    const network = new Network();
    await ip("netns", "add", network.#namespace(SWITCH));
    try {
      await ip("-n", network.#namespace(SWITCH), "link", "add", BRIDGE, "type", "bridge");
      await ip("-n", network.#namespace(SWITCH), "link", "set", BRIDGE, "up");
      await network.#plug(HERE, undefined);
      return network;
    } catch (error) {
      await network[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Adds a host. @param number the last part of its address @param nameServer whom it asks for names */
  async add(name: string, number: number, nameServer?: string): Promise<void> {
    const namespace = this.#namespace(name);
    await ip("netns", "add", namespace);
    this.#hosts.add(name);
    await ip("-n", namespace, "link", "set", "lo", "up");
    await this.#plug(number, name);
    if (nameServer === undefined) return;
    await Deno.mkdir(`/etc/netns/${namespace}`, { recursive: true });
    await Deno.writeTextFile(`/etc/netns/${namespace}/resolv.conf`, `nameserver ${nameServer}\noptions timeout:1\n`);
  }

  address(number: number): string {
    return `${this.#subnet}.${number}`;
  }

  /** Words that run what follows on a host. */
  on(name: string): readonly string[] {
    return ["ip", "netns", "exec", this.#namespace(name)];
  }

  /** Cuts a host off, or reconnects it. */
  async link(name: string, state: "up" | "down"): Promise<void> {
    await ip("-n", this.#namespace(SWITCH), "link", "set", `p-${name}`, state);
  }

  /** How long the kernel of a host takes to refuse a connection: the shortest of a few, as others take their time too. */
  async roundTripMs(number: number): Promise<number> {
    const times = [];
    for (let i = 0; i < ROUND_TRIPS; i++) {
      const startedMs = performance.now();
      try {
        (await Deno.connect({ hostname: this.address(number), port: CLOSED_PORT })).close();
      } catch (error) {
        if (!(error instanceof Deno.errors.ConnectionRefused)) throw error;
      }
      times.push(performance.now() - startedMs);
    }
    return Math.min(...times);
  }

  /** Delays and loses what a host sends and receives, until the link is disposed of. */
  async slow(name: string, slowness: Slowness): Promise<SlowLink> {
    return await slowDown({
      host: { namespace: this.#namespace(name), card: DEVICE },
      bridge: { namespace: this.#namespace(SWITCH), name: BRIDGE, port: `p-${name}` },
      prefix: `${this.#id}s${this.#links++}`,
    }, slowness);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The end of this process's own host; the other end goes with it.
    if (this.#links > 0) await ip("link", "delete", `${this.#id}0`);
    for (const name of [...this.#hosts, SWITCH]) {
      await ip("netns", "delete", this.#namespace(name));
      await Deno.remove(`/etc/netns/${this.#namespace(name)}`, { recursive: true }).catch((error) => {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      });
    }
  }

  #namespace(name: string): string {
    return `${this.#id}-${name}`;
  }

  /** A cable between a host and the bridge. */
  async #plug(number: number, name: string | undefined): Promise<void> {
    const near = `${this.#id}${this.#links++}`;
    const far = `p-${name ?? "here"}`;
    await ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", this.#namespace(SWITCH));
    await ip("-n", this.#namespace(SWITCH), "link", "set", far, "master", BRIDGE, "up");
    const own = name === undefined ? [] : ["-n", this.#namespace(name)];
    if (name !== undefined) await ip("link", "set", near, "netns", this.#namespace(name), "name", DEVICE);
    const device = name === undefined ? near : DEVICE;
    await ip(...own, "addr", "add", `${this.address(number)}/24`, "dev", device);
    await ip(...own, "link", "set", device, "up");
  }
}
