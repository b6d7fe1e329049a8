/**
 * Which files of a repository make a model: those of a safetensors directory, or one GGUF file with all its parts. Knows
 * names of files only.
 */

import { HubError } from "./hub_error.ts";
import type { HubName } from "./hub_name.ts";

/** The files of one model. */
export interface ChosenFiles {
  readonly paths: readonly string[];
  /** What is given to `--model`, within the repository: a GGUF file, or "" for the repository itself. */
  readonly model: string;
}

/** Beside the weights. */
const DESCRIPTIONS = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "chat_template.jinja",
  "tidepool.json",
];
const REQUIRED = ["config.json", "tokenizer.json", "tokenizer_config.json"];
const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";
const SHARD = /^model-\d{5}-of-\d{5}\.safetensors$/;
const PART = /-(\d{5})-of-(\d{5})\.gguf$/;

/** The default in a repository of GGUF files: the size that most people take. */
const DEFAULT_QUANT = "Q4_K_M";

/**
 * @param paths of all files of a repository
 * @throws {HubError} `hub_refused` when there is no such model among them, with what there is
 */
export function chooseFiles({ repository, quant }: HubName, paths: readonly string[]): ChosenFiles {
  const shards = paths.filter((path) => SHARD.test(path));
  const hasSafetensors = paths.includes(SINGLE) || paths.includes(INDEX) && shards.length > 0;
  if (quant === undefined && hasSafetensors) {
    const missing = REQUIRED.find((path) => !paths.includes(path));
    if (missing !== undefined) throw refused(repository, `it has no ${missing}`);
    const weights = paths.includes(SINGLE) ? [SINGLE] : [INDEX, ...shards];
    return { paths: [...paths.filter((path) => DESCRIPTIONS.includes(path)), ...weights], model: "" };
  }
  return chooseGguf({ repository, quant }, paths);
}

function chooseGguf({ repository, quant }: HubName, paths: readonly string[]): ChosenFiles {
  const models = paths.filter((path) => path.endsWith(".gguf") && (PART.exec(path)?.[1] ?? "00001") === "00001")
    // Image encoders and importance matrices are no models.
    .filter((path) => !/(^|\/)mmproj|imatrix/i.test(path));
  const wanted = quant ?? (models.length > 1 ? DEFAULT_QUANT : undefined);
  const found = wanted === undefined ? models : models.filter((path) => isQuant(path, wanted));
  const [model] = found;
  if (model === undefined || found.length > 1) {
    const names = models.map((path) => path.replace(PART, "").replace(/\.gguf$/, ""));
    const have = names.length === 0 ? "none" : names.join(", ");
    const what = wanted === undefined ? "a model in safetensors or GGUF" : `one GGUF file of ${wanted}`;
    throw refused(repository, `expected ${what}, found ${found.length > 1 ? found.join(", ") : have}`);
  }
  const [suffix] = PART.exec(model) ?? [];
  const stem = suffix === undefined ? undefined : model.slice(0, -suffix.length);
  const parts = stem === undefined ? [model] : paths.filter((path) => path.startsWith(stem) && PART.test(path));
  return { paths: parts, model };
}

/** `…-Q4_K_M.gguf`, `….Q4_K_M.gguf`, parts of one, or anything in a folder of that name; case does not matter. */
function isQuant(path: string, quant: string): boolean {
  const [name, wanted] = [path.replace(PART, "").replace(/\.gguf$/, "").toLowerCase(), quant.toLowerCase()];
  const file = name.split("/").at(-1) ?? "";
  return file === wanted || file.endsWith(`-${wanted}`) || file.endsWith(`.${wanted}`) ||
    name.startsWith(`${wanted}/`);
}

function refused(repository: string, reason: string): HubError {
  return new HubError("hub_refused", `Cannot take ${repository}: ${reason}`);
}
