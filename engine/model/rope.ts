/**
 * Rotary position embedding on the CPU: the frequencies of a model, and the cosine and sine of each position. All in
 * f64, so that far positions keep their phase; kernels get the finished table. Knows positions; knows nothing of GPUs.
 */

import type { ModelConfig } from "./model_config.ts";
import type { RopeScaling } from "./rope_config.ts";

/** Angles per position, and the factor on cosine and sine. */
export interface RopeFrequencies {
  /** Radians per position, [headDim / 2]. */
  readonly inverseFrequencies: Float64Array;
  /** Multiplied into cosine and sine; 1 but for yarn. */
  readonly scale: number;
}

type Yarn = Extract<RopeScaling, { kind: "yarn" }>;
type Llama3 = Extract<RopeScaling, { kind: "llama3" }>;

function llama3Frequency(frequency: number, scaling: Llama3): number {
  const { factor, lowFreqFactor, highFreqFactor, originalPositions } = scaling;
  const wavelength = 2 * Math.PI / frequency;
  if (wavelength < originalPositions / highFreqFactor) return frequency;
  if (wavelength > originalPositions / lowFreqFactor) return frequency / factor;
  const smooth = (originalPositions / wavelength - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

/** How much of each frequency is interpolated: 0 for the fast ones, 1 for the slow ones, a ramp between. */
function yarnRamp(config: Pick<ModelConfig, "headDim" | "ropeTheta">, scaling: Yarn): (index: number) => number {
  const { headDim, ropeTheta } = config;
  const dimensionOf = (turns: number) =>
    headDim * Math.log(scaling.originalPositions / (turns * 2 * Math.PI)) / (2 * Math.log(ropeTheta));
  const low = Math.max(0, Math.floor(dimensionOf(scaling.betaFast)));
  const high = Math.min(headDim - 1, Math.ceil(dimensionOf(scaling.betaSlow)));
  // Equal ends would divide by zero; the width is the one of the published code.
  const width = high === low ? 0.001 : high - low;
  return (index) => Math.min(1, Math.max(0, (index - low) / width));
}

/** The frequencies of a model, its scaling applied. */
export function ropeFrequencies(
  config: Pick<ModelConfig, "headDim" | "ropeTheta" | "ropeScaling">,
): RopeFrequencies {
  const { headDim, ropeTheta, ropeScaling: scaling } = config;
  const plain = Float64Array.from({ length: headDim / 2 }, (_, i) => ropeTheta ** (-2 * i / headDim));
  switch (scaling.kind) {
    case "none":
      return { inverseFrequencies: plain, scale: 1 };
    case "linear":
      return { inverseFrequencies: plain.map((frequency) => frequency / scaling.factor), scale: 1 };
    case "divisors":
      return { inverseFrequencies: plain.map((frequency, i) => frequency / (scaling.divisors[i] ?? 1)), scale: 1 };
    case "llama3":
      return { inverseFrequencies: plain.map((frequency) => llama3Frequency(frequency, scaling)), scale: 1 };
    case "yarn": {
      const ramp = yarnRamp(config, scaling);
      const mixed = plain.map((frequency, i) => ramp(i) * frequency / scaling.factor + (1 - ramp(i)) * frequency);
      return { inverseFrequencies: mixed, scale: scaling.attentionFactor };
    }
  }
}

/** The frequencies of layers with a window of their own; undefined: there are none. */
export function localRopeFrequencies(
  { headDim, localLayers }: Pick<ModelConfig, "headDim" | "localLayers">,
): RopeFrequencies | undefined {
  return localLayers && ropeFrequencies({ headDim, ...localLayers.rope });
}

/** Positions of a block: the angles of its first one are turned on by the distance from it. */
const BLOCK_POSITIONS = 64;

/** What `rotations` keeps of frequencies. */
interface Turns {
  /** Cosine and sine of each distance within a block: [BLOCK_POSITIONS, headDim / 2, 2]. */
  readonly distances: Float64Array;
  /** The block used last, and those of its first position: a sequence stays in a block for 64 tokens. */
  block: number;
  first: Float64Array;
}

const turnsOfFrequencies = new WeakMap<RopeFrequencies, Turns>();

/**
 * Cosine and sine for rows at the given positions: those of their block's first position, turned on by the distance from
 * it (cosine and sine of a sum). So a prompt takes one of 64 positions from the mathematics library, which costs 10 ms for
 * 2,048 of them; and a position has the same bits in any company.
 *
 * @returns f32 [rows, headDim / 2, 2]: cosine, then sine; computed in f64, rounded once
 */
export function rotations(frequencies: RopeFrequencies, positions: Uint32Array): Float32Array<ArrayBuffer> {
  const { inverseFrequencies, scale } = frequencies;
  const turns = turnsOf(frequencies);
  const { distances } = turns;
  const width = 2 * inverseFrequencies.length;
  const table = new Float32Array(positions.length * width);
  let to = 0;
  for (const position of positions) {
    const distance = position % BLOCK_POSITIONS;
    if (turns.block !== position - distance) {
      turns.block = position - distance;
      turns.first = turnsAt(inverseFrequencies, turns.block);
    }
    const { first } = turns;
    const from = distance * width;
    for (let i = 0; i < width; i += 2) {
      const cosine = first[i] ?? NaN;
      const sine = first[i + 1] ?? NaN;
      const cosineOn = distances[from + i] ?? NaN;
      const sineOn = distances[from + i + 1] ?? NaN;
      table[to++] = (cosine * cosineOn - sine * sineOn) * scale;
      table[to++] = (sine * cosineOn + cosine * sineOn) * scale;
    }
  }
  return table;
}

function turnsOf(frequencies: RopeFrequencies): Turns {
  const known = turnsOfFrequencies.get(frequencies);
  if (known !== undefined) return known;
  const { inverseFrequencies } = frequencies;
  const width = 2 * inverseFrequencies.length;
  const distances = new Float64Array(BLOCK_POSITIONS * width);
  for (let i = 0; i < BLOCK_POSITIONS; i++) distances.set(turnsAt(inverseFrequencies, i), i * width);
  const made = { distances, block: 0, first: turnsAt(inverseFrequencies, 0) };
  turnsOfFrequencies.set(frequencies, made);
  return made;
}

/** Cosine and sine of each frequency at a position. */
function turnsAt(inverseFrequencies: Float64Array, position: number): Float64Array {
  const turns = new Float64Array(2 * inverseFrequencies.length);
  for (const [i, frequency] of inverseFrequencies.entries()) {
    turns[2 * i] = Math.cos(position * frequency);
    turns[2 * i + 1] = Math.sin(position * frequency);
  }
  return turns;
}
