/**
 * An engine without a GPU, and a worker process around it: `deno run -A tests/support/fake_engine.ts worker --spawned`.
 * The name of the random model says how loading goes; the first token of a step says how the step goes, the second, if
 * there is one, on which worker of a group only, the third before which exchange. Exchanges are real, and checked.
 */

import { EngineError } from "../../engine/errors.ts";
import type { EngineInfo } from "../../engine/engine_info.ts";
import type { LateMasks, Span, SpanResult, Step, StepResult } from "../../engine/span.ts";
import { GpuError } from "../../kernels/errors.ts";
import type { HostedEngine, LoadRequest, OpenEngine, WorkerEngine } from "../../workers/engine_host.ts";
import type { GroupPlace } from "../../engine/group_place.ts";
import { runWorker } from "../../workers/worker.ts";
import { exchangeContract, type Phase, PHASES } from "../contracts/exchange_contract.ts";
import { HostMemory } from "./host_memory.ts";

/** What a fake engine reports about itself. */
export const FAKE_INFO: EngineInfo = {
  digest: "fake",
  maxPositions: 4096,
  vocabSize: 512,
  parameters: 1000,
  layers: 4,
  roles: ["dense", "select", "sparse", "dense"],
  selectLayers: [1],
  sparse: undefined,
  adapter: "fake",
  software: true,
  provider: "deno",
  matrix: undefined,
  cheapCorrections: 0,
  measured: [],
  replicaPages: 0,
  kvPages: 64,
};

const MATRICES = { adapter: "fake card", provider: "dawn", matrix: "16×16×16 f16→f32" } as const;

/** First tokens that make a step go wrong. */
export const TRICKS = {
  refuse: 501,
  crash: 502,
  loseDevice: 503,
  hang: 504,
  slow: 505,
  exit: 506,
  die: 507,
  stop: 508,
  hold: 509,
} as const;

/** Names of models that make loading go wrong; `other` has another digest, `matrices` computes on matrix units. */
export const MODELS = {
  fine: "fine",
  corrupt: "corrupt",
  crashing: "crashing",
  silent: "silent",
  other: "other",
  matrices: "matrices",
} as const;

/** What a worker process prints when a step is held; SIGUSR1 lets the step go on. */
export const HELD_LINE = "The step is held";

/** Plays the trick that a token names. */
async function play(trick: number | undefined): Promise<void> {
  if (trick === TRICKS.refuse) throw new EngineError("kv_exhausted", "Cannot append rows: no page is free");
  if (trick === TRICKS.crash) throw new TypeError("the fake engine fell over");
  if (trick === TRICKS.loseDevice) throw new GpuError("device_lost", "Cannot run step: the fake device is lost");
  if (trick === TRICKS.exit) Deno.exit(7);
  if (trick === TRICKS.die) Deno.kill(Deno.pid, "SIGKILL");
  if (trick === TRICKS.stop) Deno.kill(Deno.pid, "SIGSTOP");
  if (trick === TRICKS.hang) await new Promise<never>(() => setTimeout(() => {}, 60_000));
  if (trick === TRICKS.slow) await new Promise((resolve) => setTimeout(resolve, 300));
  if (trick === TRICKS.hold) await held();
}

async function held(): Promise<void> {
  const released = Promise.withResolvers<void>();
  Deno.addSignalListener("SIGUSR1", released.resolve);
  writeError(HELD_LINE);
  await released.promise;
  Deno.removeSignalListener("SIGUSR1", released.resolve);
}

/**
 * Answers each span with the sum of its tokens, and of the masks that follow the step: the lead worker does, the others
 * answer without tokens.
 */
class FakeEngine implements WorkerEngine {
  readonly info: EngineInfo;
  readonly memory = new HostMemory();
  #place: GroupPlace | undefined;

  constructor(info: EngineInfo) {
    this.info = info;
  }

  join(place: GroupPlace): void {
    if (this.info.matrix !== undefined) writeError(`matrix units are ${place.matrix ? "used" : "left unused"}`);
    this.#place = place;
  }

  async run(step: Step, late?: LateMasks): Promise<StepResult> {
    const place = this.#place;
    if (place === undefined) throw new Error("the fake engine is in no group");
    const [trick, worker = place.index, before = 0] = step.spans[0]?.tokens ?? [];
    const pass = async (phase: Phase) => {
      if (worker === place.index && phase === PHASES[before]) await play(trick);
    };
    const { index, map: { workers }, exchange } = place;
    await exchangeContract({ index, workers, exchange, tensors: this.memory }, {
      step: step.index,
      rows: 7,
      pass,
      tolerance: 0,
    });
    const isLead = place.index === 0;
    const masks = (isLead && await late) || new Uint32Array();
    const spans = step.spans.map((span) => isLead ? answer(span, masks) : { sequence: span.sequence });
    return { index: step.index, spans, timing: { encodeMs: 0.5, waitMs: 1, totalMs: 1.5 } };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

function answer({ sequence, tokens, logits }: Span, masks: Uint32Array): SpanResult {
  const token = [...tokens, ...masks].reduce((sum, t) => sum + t, 0);
  if (logits === "none") return { sequence };
  if (logits === "last") return { sequence, token, logprobs: { logprob: -1.5, top: [{ token, logprob: -Infinity }] } };
  const scores = { logprob: Float32Array.from(tokens, (t) => -t / 4), argmax: Uint32Array.from(tokens) };
  return { sequence, token, scores };
}

/** Of a model so small that no group of it has lanes. */
const FAKE_KEY_BYTES = 64;

/** Opens a fake engine. */
export async function openFake(load: LoadRequest, onProgress: Parameters<OpenEngine>[1]): Promise<HostedEngine> {
  const name = "random" in load.model ? load.model.random : load.model.directory;
  onProgress(1, 4);
  await Promise.resolve();
  if (name === MODELS.corrupt) throw new EngineError("invalid_model", "Cannot read model.safetensors: it is truncated");
  if (name === MODELS.crashing) Deno.exit(9);
  if (name === MODELS.silent) await new Promise<never>(() => setTimeout(() => {}, 60_000));
  onProgress(4, 4);
  const unlike = name === MODELS.other ? { digest: "other" } : name === MODELS.matrices ? MATRICES : {};
  const engine = new FakeEngine({ ...FAKE_INFO, ...unlike });
  return { engine, memory: engine.memory, keyBytes: FAKE_KEY_BYTES };
}

/** A step of one span whose mask follows. */
export function fakeMaskedStep(index: number, tokens: readonly number[], deadlineMs = 5000): Step {
  const step = fakeStep(index, tokens, deadlineMs);
  return { ...step, spans: step.spans.map((span) => ({ ...span, masksFollow: true })) };
}

/** A step of one span. */
export function fakeStep(index: number, tokens: readonly number[], deadlineMs = 5000): Step {
  return {
    index,
    open: [],
    release: [],
    spans: [{
      kind: "prefill",
      sequence: 1,
      from: 0,
      tokens: Uint32Array.from(tokens),
      logits: "last",
      newPages: Uint32Array.of(0),
    }],
    deadlineMs,
  };
}

function writeError(line: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`${line}\n`));
}

if (import.meta.main) {
  const silence = Deno.args.find((arg) => arg.startsWith("--silence-ms="));
  const [cert, key] = await Promise.all(
    ["cert", "key"].map((name) => Deno.readTextFile(new URL(`../fixtures/tls/${name}.pem`, import.meta.url))),
  );
  const tls = { cert: cert ?? "", key: key ?? "", ca: cert ?? "" };
  const code = await runWorker({
    open: openFake,
    ...(Deno.args.includes("--tls") ? { tls } : {}),
    spawned: Deno.args.includes("--spawned"),
    log: writeError,
    onListen: ({ port }) => {
      if (!Deno.args.includes("--spawned")) Deno.stdout.writeSync(new TextEncoder().encode(`listens on ${port}\n`));
    },
    ...(silence === undefined ? {} : { silenceMs: Number(silence.split("=")[1]) }),
  });
  Deno.exit(code);
}
