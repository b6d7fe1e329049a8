/** Where the hub is and where its files are kept, by the variables that all of Hugging Face's tools read. */

import { join } from "node:path";

/** What the environment says. */
export interface HubConfig {
  /** Without a slash at its end. */
  readonly endpoint: string;
  /** The folder of all repositories. */
  readonly cache: string;
  readonly token: string | undefined;
  /** Whether the network must not be asked. */
  readonly offline: boolean;
}

/** Reads `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN`, the token that `huggingface-cli login` kept, `HF_HUB_OFFLINE`. */
export async function hubConfig(
  env: (name: string) => string | undefined = (name) => Deno.env.get(name),
): Promise<HubConfig> {
  const home = env("HF_HOME") || join(env("XDG_CACHE_HOME") || join(env("HOME") ?? "", ".cache"), "huggingface");
  return {
    endpoint: (env("HF_ENDPOINT") || "https://huggingface.co").replace(/\/+$/, ""),
    cache: env("HF_HUB_CACHE") || join(home, "hub"),
    token: env("HF_TOKEN") || await keptToken(env("HF_TOKEN_PATH") || join(home, "token")),
    offline: ["1", "on", "yes", "true"].includes((env("HF_HUB_OFFLINE") ?? "").toLowerCase()),
  };
}

async function keptToken(path: string): Promise<string | undefined> {
  try {
    return (await Deno.readTextFile(path)).trim() || undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
