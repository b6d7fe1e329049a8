/**
 * Times llama.cpp, in the folder that the npm package `node-llama-cpp` is installed in: the task as JSON in the first argument,
 * the result as JSON on the last line. Imports nothing else, as it runs on its own.
 */

/** What is used of the package, whose own types come with it only where it is installed. */
interface LlamaModule {
  getLlama(options: Record<string, unknown>): Promise<{
    readonly gpu: string | false;
    readonly llamaCppRelease?: { readonly release: string };
    loadModel(options: Record<string, unknown>): Promise<LlamaModel>;
  }>;
}

interface LlamaModel {
  readonly gpuLayers: number;
  createContext(options: Record<string, unknown>): Promise<{ getSequence(): LlamaSequence }>;
}

interface LlamaSequence {
  clearHistory(): Promise<void>;
  evaluate(tokens: readonly number[], options: Record<string, unknown>): AsyncGenerator<number>;
}

/** What to measure. */
interface PeerTask {
  /** A GGUF file. */
  readonly model: string;
  /** A backend of llama.cpp, or `none` for the CPU. */
  readonly gpu: string;
  readonly contexts: readonly number[];
  readonly tokens: number;
  readonly vocabSize: number;
}

/** Speed at one context. */
export interface PeerFigures {
  readonly context: number;
  readonly prefillTokensPerSecond: number;
  readonly decodeTokensPerSecond: number;
}

/** What the process prints. */
export interface PeerResult {
  /** Release and backend. */
  readonly about: string;
  readonly figures: readonly PeerFigures[];
}

const UNTIMED_TOKENS = 8;

async function measure({ model: modelPath, gpu, contexts, tokens, vocabSize }: PeerTask): Promise<PeerResult> {
  const entry = new URL("node_modules/node-llama-cpp/dist/index.js", import.meta.url).href;
  const { getLlama }: LlamaModule = await import(entry);
  const onGpu = gpu !== "none";
  const llama = await getLlama({ gpu: onGpu ? gpu : false, build: "never", skipDownload: true, logLevel: "error" });
  const model = await llama.loadModel({ modelPath, gpuLayers: onGpu ? "max" : 0 });
  const context = await model.createContext({
    contextSize: Math.max(...contexts) + tokens + UNTIMED_TOKENS + 8,
    batchSize: 2048,
    flashAttention: true,
    ignoreMemorySafetyChecks: true,
  });
  const sequence = context.getSequence();
  await measureOne(sequence, { context: Math.min(256, ...contexts), tokens, vocabSize });
  const figures: PeerFigures[] = [];
  for (const length of contexts) figures.push(await measureOne(sequence, { context: length, tokens, vocabSize }));
  const release = llama.llamaCppRelease?.release ?? "of unknown release";
  const where = llama.gpu === false ? "CPU" : `${llama.gpu}, ${model.gpuLayers} layers on the GPU`;
  return { about: `llama.cpp ${release}, ${where}`, figures };
}

async function measureOne(
  sequence: LlamaSequence,
  { context, tokens, vocabSize }: { readonly context: number; readonly tokens: number; readonly vocabSize: number },
): Promise<PeerFigures> {
  await sequence.clearHistory();
  // Words of the vocabulary, no special ones; they differ from one position to the next.
  const prompt = Array.from({ length: context }, (_, i) => 259 + (i * 7919) % (vocabSize - 259));
  const start = performance.now();
  let [first, settled, drawn] = [0, 0, 0];
  for await (const _ of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
    if (drawn === 0) first = performance.now();
    if (drawn === UNTIMED_TOKENS) settled = performance.now();
    if (drawn === UNTIMED_TOKENS + tokens) break;
    drawn++;
  }
  return {
    context,
    prefillTokensPerSecond: context / (first - start) * 1000,
    decodeTokensPerSecond: (drawn - UNTIMED_TOKENS) / (performance.now() - settled) * 1000,
  };
}

if (import.meta.main) {
  const result = await measure(JSON.parse(Deno.args[0] ?? "{}") as PeerTask);
  Deno.stdout.writeSync(new TextEncoder().encode(`\n${JSON.stringify(result)}\n`));
  // llama.cpp's threads outlive the measurement.
  Deno.exit(0);
}
