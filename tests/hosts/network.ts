/**
 * Several hosts on one machine: network namespaces on a bridge, each with an address of its own; needs root and `ip`. Knows
 * links and addresses; what runs on a host is for others.
 */

import assert from "node:assert/strict";

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

/** Made so far: a namespace that was deleted lives on until its last process has ended. */
let networks = 0;

/** @see the file's paragraph; for `await using` */
export class Network implements AsyncDisposable {
  /** Tells this network's names from those of others on the machine. */
  readonly #id = `tp${(Deno.pid % 46656).toString(36)}${(networks++).toString(36)}`;
  readonly #subnet = `10.213.${1 + Deno.pid % 250}`;
  readonly #hosts = new Set<string>();
  #links = 0;

  /** Makes the bridge, and joins this process's own host to it. */
  static async open(): Promise<Network> {
    const network = new Network();
    await network.#ip("netns", "add", network.#namespace(SWITCH));
    try {
      await network.#ip("-n", network.#namespace(SWITCH), "link", "add", BRIDGE, "type", "bridge");
      await network.#ip("-n", network.#namespace(SWITCH), "link", "set", BRIDGE, "up");
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
    await this.#ip("netns", "add", namespace);
    this.#hosts.add(name);
    await this.#ip("-n", namespace, "link", "set", "lo", "up");
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

  /** Cuts a host off, or heals that. */
  async link(name: string, state: "up" | "down"): Promise<void> {
    await this.#ip("-n", this.#namespace(SWITCH), "link", "set", `p-${name}`, state);
  }

  /** Delays and loses what a host sends. @returns false where the kernel cannot */
  async slow(name: string, delayMs: number, lossPercent: number): Promise<boolean> {
    const words = ["-n", this.#namespace(name), "qdisc", "replace", "dev", DEVICE, "root", "netem"];
    const args = [...words, "delay", `${delayMs}ms`, "loss", `${lossPercent}%`];
    return (await new Deno.Command("tc", { args, stdout: "null", stderr: "null" }).output()).success;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The end of this process's own host; the other end goes with it.
    if (this.#links > 0) await this.#ip("link", "delete", `${this.#id}0`);
    for (const name of [...this.#hosts, SWITCH]) {
      await this.#ip("netns", "delete", this.#namespace(name));
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
    await this.#ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", this.#namespace(SWITCH));
    await this.#ip("-n", this.#namespace(SWITCH), "link", "set", far, "master", BRIDGE, "up");
    const own = name === undefined ? [] : ["-n", this.#namespace(name)];
    if (name !== undefined) await this.#ip("link", "set", near, "netns", this.#namespace(name), "name", DEVICE);
    const device = name === undefined ? near : DEVICE;
    await this.#ip(...own, "addr", "add", `${this.address(number)}/24`, "dev", device);
    await this.#ip(...own, "link", "set", device, "up");
  }

  async #ip(...args: readonly string[]): Promise<void> {
    const { success, stderr } = await new Deno.Command("ip", { args: [...args], stderr: "piped" }).output();
    assert.ok(success, `ip ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
  }
}
