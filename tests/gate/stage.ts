/**
 * A stage of the gate: a child of this very Deno with a process group of its own, ended with all that it started when
 * it fails, prints nothing for too long, or is no longer needed.
 */

import { within } from "../../kernels/within.ts";
import type { CpuMeter } from "./cpu_meter.ts";
import type { Guard } from "./guard.ts";

/** What to run. */
export interface Stage {
  readonly name: string;
  /** Arguments of `deno`. */
  readonly args: readonly string[];
  /** A stage that prints nothing for so long hangs. There is no bound on the whole: machines differ. */
  readonly silenceMs: number;
  /** Shown as it comes, not only when the stage fails. */
  readonly live?: boolean;
  /** A complaint about the output of a stage that ended well. */
  readonly complaint?: (stdout: string) => string | undefined;
}

/** What came of a stage. */
export interface Outcome {
  readonly stage: Stage;
  /** Why it failed; undefined when it did not. */
  readonly complaint: string | undefined;
  readonly stdout: string;
  /** stdout and stderr as they came; without the former when the stage has a complaint to look for in it. */
  readonly shown: string;
  readonly seconds: number;
  /** Of the CPU, with all that it started; undefined where that is unknown. */
  readonly cpuSeconds: number | undefined;
}

/** What a stage needs of the gate. */
export interface StageHost {
  readonly guard: Guard;
  readonly cpu: CpuMeter;
  readonly directory: string;
  /** Aborted when another stage has failed, or the gate is interrupted. */
  readonly signal: AbortSignal;
  readonly write: (text: string) => void;
}

/** How long the output of a stage may come after its end. */
const PIPE_MS = 5000;

/**
 * Deno's own WebGPU otherwise loads OpenGL beside Vulkan, and libEGL frees the state of every thread when the process
 * exits. A thread that ends at that moment, as each test file's does, frees the same: one process in 200 aborted (134)
 * after all its tests had passed.
 */
const VULKAN_ALONE: Readonly<Record<string, string>> = Deno.build.os === "linux"
  ? { DENO_WEBGPU_BACKEND: "vulkan" }
  : {};

/** Runs a stage to its end. Does not throw for what the stage does. */
export async function runStage(stage: Stage, host: StageHost): Promise<Outcome> {
  const startMs = performance.now();
  const output: Output = { stdout: "", shown: "" };
  const complaint = host.signal.aborted ? "not run" : await complaintOf(stage, host, output);
  const seconds = (performance.now() - startMs) / 1000;
  return { stage, complaint, ...output, seconds, cpuSeconds: host.cpu.take() };
}

interface Output {
  stdout: string;
  shown: string;
}

/** Runs a stage, gathers what it prints, and says what is wrong with it. */
async function complaintOf(stage: Stage, { guard, signal, ...host }: StageHost, output: Output) {
  const child = start(stage, host.directory);
  guard.watch(child.pid);
  let ended: string | undefined;
  const end = (why: string) => {
    ended ??= why;
    guard.end(child.pid);
  };
  const abort = () => end("stopped");
  signal.addEventListener("abort", abort);
  const silence = new Silence(stage.silenceMs, () => end(`printed nothing for ${stage.silenceMs / 1000} s`));
  const show = (text: string) => {
    silence.broken();
    output.shown += text;
    if (stage.live) host.write(text);
  };
  const keep = (text: string) => {
    silence.broken();
    output.stdout += text;
    if (stage.complaint === undefined) show(text);
  };
  const collected = Promise.all([collect(child.stdout, keep), collect(child.stderr, show)]);
  const { code } = await child.status;
  silence.end();
  signal.removeEventListener("abort", abort);
  // What it left running goes with it, and lets go of the pipes.
  guard.end(child.pid);
  await within(PIPE_MS, collected);
  return ended ?? (code === 0 ? stage.complaint?.(output.stdout) : `ended with ${code}`);
}

function start({ args }: Stage, directory: string): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd: directory,
    env: { NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1", ...VULKAN_ALONE },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    detached: true,
  }).spawn();
}

/** Calls back when nothing happens for a time. */
class Silence {
  readonly #ms: number;
  readonly #onSilence: () => void;
  #timer: ReturnType<typeof setTimeout>;
  #ended = false;

  constructor(ms: number, onSilence: () => void) {
    this.#ms = ms;
    this.#onSilence = onSilence;
    this.#timer = setTimeout(onSilence, ms);
  }

  broken(): void {
    if (this.#ended) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#onSilence, this.#ms);
  }

  end(): void {
    this.#ended = true;
    clearTimeout(this.#timer);
  }
}

async function collect(stream: ReadableStream<Uint8Array>, add: (text: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  for await (const chunk of stream) add(decoder.decode(chunk, { stream: true }));
}
