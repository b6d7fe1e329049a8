/** `pull`: fetches a model from the hub into the cache that all of Hugging Face's tools share. */

import type { Command, FlagValues } from "../command.ts";
import { UsageError } from "../errors.ts";
import { requireHubName } from "../hub/hub_name.ts";
import { pull } from "../hub/pull.ts";
import type { Terminal } from "../terminal.ts";

const flags = {
  model: { kind: "text", value: "NAME", help: "org/model, or org/model:quant for one of several GGUF files" },
} as const;

export const command: Command<typeof flags> = {
  summary: "Fetch a model from the Hugging Face hub, or what is missing of it",
  argument: "model",
  flags,
  async run({ model }: FlagValues<typeof flags>, terminal: Terminal): Promise<number> {
    if (model === undefined) throw new UsageError("Cannot pull a model: give its name, org/model or org/model:quant");
    const path = await pull(requireHubName(model), {
      onProgress: (bytes, total) => terminal.progress(`Fetching ${model}`, total === 0 ? 1 : bytes / total),
    });
    terminal.line(path);
    return 0;
  },
};
