/** Starts a service: plans its workers, loads its text side, and puts the parts to work. */

import { Tokenizer } from "../engine/text/tokenizer.ts";
import { ApiKeys } from "./access/api_keys.ts";
import { resolveConfig, type ResolvedConfig, type ServiceConfig } from "./config.ts";
import { EMBEDDED_MODEL, withLocalModel } from "./model_choice.ts";
import { planGroups } from "./fleet/plan_groups.ts";
import { CALL_MARKERS } from "./answer/tool_formats.ts";
import { GrammarService } from "./grammar/grammar_service.ts";
import { RunningService } from "./running_service.ts";
import { connectionLimit, descriptorLimit } from "./server/connection_limit.ts";
import { HttpServer } from "./server/http_server.ts";
import { readTlsFiles } from "./host/tls_files.ts";
import type { Service, ServiceOptions } from "./service.ts";
import { TextPool } from "./text/text_pool.ts";

/**
 * Starts a service. It listens at once, unready while the model loads.
 *
 * @throws {HubError} when the model is a name of the hub and cannot be pulled
 * @throws {CodedError} `invalid_request` for a bad configuration or an address that is taken, `invalid_model` or
 * `unsupported_model` when the model's text side is at fault; `ready` rejects with whatever else is wrong with the model
 *
 * @example
 * ```ts
 * const service = await startService({ port: 0, random: "tiny", kvTokens: 1024 });
 * try {
 *   const model = await service.ready;
 *   const response = await fetch(`http://127.0.0.1:${service.address.port}/v1/completions`, {
 *     method: "POST",
 *     body: JSON.stringify({ model: model.id, prompt: [10, 20, 30], max_tokens: 2, ignore_eos: true }),
 *   });
 *   const { usage } = await response.json();
 *   if (usage.completion_tokens !== 2) throw new Error("Expected two tokens");
 * } finally {
 *   await service.close();
 * }
 * ```
 */
export async function startService(config: ServiceConfig = {}, options: ServiceOptions = {}): Promise<Service> {
  const { onProgress = () => {} } = options;
  const local = await withLocalModel(config, onProgress);
  // A path in the cache ends in a commit, which is no name to ask for.
  const named = local.model === config.model || config.model === undefined ? {} : { modelName: config.model };
  const resolved = resolveConfig({ ...named, ...local });
  const workers = await planGroups(resolved);
  // Random weights have no words of their own, and mean nothing by the token that ends an answer.
  const [directory, stopTokens] = "directory" in resolved.model ? [resolved.model.directory] : [EMBEDDED_MODEL, []];
  const tokenizer = await Tokenizer.load(directory);
  const { apiKeyFile } = resolved.access;
  const keys = apiKeyFile === undefined ? undefined : await ApiKeys.read(apiKeyFile);
  const server = await listen(resolved);
  const grammars = new GrammarService({ directory, markers: CALL_MARKERS });
  let text: TextPool | undefined;
  try {
    const { textThreads: threads, textMs: jobMs, toolFormat } = resolved;
    text = await TextPool.start({ directory, stopTokens, toolFormat, threads, jobMs });
    return new RunningService({ config: resolved, workers, server, keys, text, grammars, tokenizer }, options);
  } catch (error) {
    text?.close();
    grammars.close();
    await server.close();
    throw error;
  }
}

async function listen({ host, port, access: { tls, maxConnections } }: ResolvedConfig): Promise<HttpServer> {
  return await HttpServer.listen({
    host,
    port,
    maxConnections: connectionLimit(maxConnections, descriptorLimit()),
    tls: tls === undefined ? undefined : await readTlsFiles(tls),
  });
}
