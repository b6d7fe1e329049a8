/**
 * Makes the link of a host slow and lossy in both directions, and restores it: by `tc netem` where the kernel has it, elsewhere by
 * a cable of ours between two virtual cards. The host's own card, address and connections stay as they are.
 */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { ip, tc } from "./ip.ts";
import type { Slowness } from "./slow_queue.ts";

const CABLE = fileURLToPath(new URL("slow_cable.ts", import.meta.url));
const SEED = 7;

/** A link between a host and the bridge. */
export interface LinkPlace {
  /** Namespace and card of the host. */
  readonly host: { readonly namespace: string; readonly card: string };
  /** Namespace of the bridge, the bridge, and its port that the host is plugged into. */
  readonly bridge: { readonly namespace: string; readonly name: string; readonly port: string };
  /** Begins the names of what is made; at most 13 characters. */
  readonly prefix: string;
}

/** A link that is slow until it is disposed of. */
export interface SlowLink extends AsyncDisposable {
  readonly by: "netem" | "a cable in user space";
}

/** See the top of this file. */
export async function slowDown(place: LinkPlace, slowness: Slowness): Promise<SlowLink> {
  const { host, bridge } = place;
  const ends = [[host.namespace, host.card], [bridge.namespace, bridge.port]] as const;
  const netem = ["netem", "delay", `${slowness.delayMs}ms`, "loss", `${slowness.lossPercent}%`];
  const isSlow = [];
  for (const [namespace, card] of ends) {
    isSlow.push(await tc("-n", namespace, "qdisc", "replace", "dev", card, "root", ...netem));
  }
  if (!isSlow.every(Boolean)) return await layCable(place, slowness);
  return {
    by: "netem",
    async [Symbol.asyncDispose]() {
      for (const [namespace, card] of ends) await tc("-n", namespace, "qdisc", "delete", "dev", card, "root");
    },
  };
}

/** host – port – a bridge of its own – near card = cable = far card – the bridge */
async function layCable({ bridge, prefix }: LinkPlace, slowness: Slowness): Promise<SlowLink> {
  const { namespace, name, port } = bridge;
  const [near, far, own] = [`${prefix}n`, `${prefix}f`, `${prefix}b`];
  const words = [near, far, String(slowness.delayMs), String(slowness.lossPercent), String(SEED)];
  const cable = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-check", "--allow-ffi", CABLE, ...words],
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const output = cable.stdout.getReader();
  const { done } = await output.read();
  assert.ok(!done, "Cannot lay a cable: its program has ended");
  for (const card of [near, far]) await ip("link", "set", card, "netns", namespace);
  await ip("-n", namespace, "link", "add", own, "type", "bridge");
  await ip("-n", namespace, "link", "set", own, "up");
  await ip("-n", namespace, "link", "set", far, "master", name, "up");
  await ip("-n", namespace, "link", "set", near, "master", own, "up");
  await ip("-n", namespace, "link", "set", port, "master", own);
  return {
    by: "a cable in user space",
    async [Symbol.asyncDispose]() {
      await ip("-n", namespace, "link", "set", port, "master", name);
      await ip("-n", namespace, "link", "delete", own);
      // The cards go with the process.
      cable.kill("SIGKILL");
      await cable.status;
      await output.cancel();
    },
  };
}
