/**
 * The benchmarks of docs/benchmarks.md as commands, in the order of what they are worth where time is short, each with what it takes
 * on an H200. Knows commands; runs nothing.
 */

/** A benchmark. */
export interface Phase {
  readonly name: string;
  /** For Deno, without `--json FILE`. */
  readonly args: readonly string[];
  /** @default none beyond those of this process */
  readonly env?: Readonly<Record<string, string>>;
  /** What it takes on an H200 whose driver has compiled the kernels before. */
  readonly seconds: number;
  /** The type of weights, where llama.cpp is measured. */
  readonly peer?: string;
}

/** What phases are made for. */
export interface PhaseOptions {
  /** A named shape of 8B parameters or so. */
  readonly shape: string;
  /** Where files of random weights lie. */
  readonly files: string;
  /** Flags that name the folder with llama.cpp's package, if there is one. */
  readonly modules: readonly string[];
}

/** Lengths of context in every table of large models. */
const CONTEXTS = "1024,32768,98304";
const PROMPTS = "4096,32768,98304";
/** Enough where one process measures several contexts: its code has settled after the first. */
const TOKENS = "--tokens 48 --untimed 48";
const COPIED = "--kv-tokens 106496 --fill copied";

/** Each phase, the most valuable first. */
export function phasesOf({ shape, files, modules }: PhaseOptions): readonly Phase[] {
  const bench = (flags: string) => ["run", "-A", "mod.ts", "bench", ...flags.split(" ")];
  const large = `--random ${shape} --budget 512`;
  const quantized = (dtype: string) =>
    bench(
      `${large} ${COPIED} --contexts ${CONTEXTS} --quantize ${dtype} --corrections 32 ${TOKENS} --chunk 4096 --prompts 4096,32768`,
    );
  const peer = (type: string) => [
    ...["run", "-A", "tests/bench/peer.ts", "--random", shape, "--types", type, "--contexts", `1024,${PROMPTS}`],
    ...["--tokens", "32", "--alone", "--no-shares", "--files", files, ...modules],
  ];
  const tide = (gpu: string) =>
    bench(`--gpu ${gpu} --kv-tokens 20000 --chunk 2048 --contexts 1024,16384 --tokens 200 --untimed 300`);
  return [
    {
      name: "decode",
      args: bench(
        `${large} --kv-tokens 200000 --fill copied --contexts ${CONTEXTS} --corrections 32 --agreement 0.96 --together 4 ` +
          `--chunk 4096 --prompts ${PROMPTS} --batch 1,8,32,64 --batch-context 4096 ${TOKENS}`,
      ),
      seconds: 95,
    },
    { name: "peer", args: peer("f16"), seconds: 40, peer: "f16" },
    { name: "q4", args: quantized("q4"), seconds: 20 },
    { name: "q8", args: quantized("q8"), seconds: 20 },
    {
      name: "profile",
      args: bench(`${large} ${COPIED} --contexts ${CONTEXTS} --chunk 1024 --tokens 24 --untimed 24 --profile-only`),
      seconds: 22,
    },
    { name: "peer_q4", args: peer("q4_0"), seconds: 35, peer: "q4_0" },
    { name: "peer_q8", args: peer("q8_0"), seconds: 36, peer: "q8_0" },
    { name: "q4k", args: quantized("q4k"), seconds: 20 },
    { name: "embedded", args: tide("dawn"), seconds: 11 },
    {
      name: "mha",
      args: bench(`--random llama-2-7b --budget 512 ${COPIED} --contexts 10240,32768,98304 ${TOKENS}`),
      seconds: 22,
    },
    { name: "loading", args: "run -A tests/bench/loading.ts --gib 4 --rounds 2".split(" "), seconds: 14 },
    {
      name: "kernels_deno",
      args: ["run", "-A", "tests/kernels/bench.ts", "--cases", "^matmul 1024×(28672|128256)|^llama.*32768.*prefill"],
      env: { TIDEPOOL_GPU: "deno" },
      seconds: 12,
    },
    { name: "embedded_deno", args: tide("deno"), seconds: 10 },
    {
      name: "decode_deno",
      args: bench(`--gpu deno ${large} --kv-tokens 8192 --fill copied --contexts 1024 --tokens 100 --untimed 100`),
      seconds: 14,
    },
    { name: "kernels", args: ["run", "-A", "tests/kernels/bench.ts"], env: { TIDEPOOL_GPU: "dawn" }, seconds: 95 },
  ];
}
