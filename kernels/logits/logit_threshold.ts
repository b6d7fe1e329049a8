/**
 * The lowest logit that top_k or top_p keep, exactly and without sorting: a radix select over order-preserving keys, in
 * digits of 11, 11 and 10 bits, by count or by probability mass. Masses are whole numbers, so that the order in which
 * threads add them does not matter. Knows one row of logits; `sample.ts` knows what is done with the threshold.
 */

import { eachLogit, unroll } from "../wgsl.ts";

const BINS = 2048;

/**
 * Declares `Row`, `key_of(logit)` and `threshold(row, t, goal) -> u32`: the highest key whose logits, with all above it,
 * reach the goal. Logits that are equal to the threshold count as kept, all of them.
 * Needs what `eachLogit` needs.
 */
export function logitThreshold(threads: number): string {
  return `
    ${declarations(threads)}
    ${countDigits(threads)}
    ${findDigit(threads)}
    fn threshold(row: Row, t: u32, goal: u32) -> u32 {
      count_digits(row, t, vec2<u32>(0u, 0u), vec2<u32>(21u, 2047u));
      let high = find_digit(t, goal);
      let high_key = high.x << 21u;
      count_digits(row, t, vec2<u32>(high_key, 0xffe00000u), vec2<u32>(10u, 2047u));
      let middle = find_digit(t, goal - high.y);
      let middle_key = high_key | (middle.x << 10u);
      count_digits(row, t, vec2<u32>(middle_key, 0xfffffc00u), vec2<u32>(0u, 1023u));
      let low = find_digit(t, goal - high.y - middle.y);
      return middle_key | low.x;
    }`;
}

function declarations(threads: number): string {
  return `
    /** A row of logits as the filters see it. */
    struct Row {
      first: u32,
      top: f32,
      inverse_temperature: f32,
      /** Keys below it are out already. */
      low: u32,
      /** What a probability is multiplied with to become a whole number; 0: every logit counts 1. */
      mass_scale: f32,
    }
    var<workgroup> bins: array<atomic<u32>, ${BINS}>;
    var<workgroup> reached: array<u32, ${threads}>;
    /** The digit at which the goal is reached, and what lies above it. */
    var<workgroup> found: vec2<u32>;

    fn key_of(logit: f32) -> u32 {
      let bits = bitcast<u32>(logit);
      return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
    }
    fn amount_of(row: Row, logit: f32) -> u32 {
      if (row.mass_scale == 0.0) { return 1u; }
      return u32(exp((logit - row.top) * row.inverse_temperature) * row.mass_scale + 0.5);
    }`;
}

/** The histogram of a digit, over the logits whose higher digits are those of the prefix. */
function countDigits(threads: number): string {
  return `
    fn count_digits(row: Row, t: u32, prefix: vec2<u32>, digit: vec2<u32>) {
      let first = row.first;
      ${unroll(BINS / threads, (i) => `atomicStore(&bins[t + ${i * threads}u], 0u);`)}
      workgroupBarrier();
      ${
    eachLogit(threads, (logit) =>
      `let key = key_of(${logit});
         if (key >= row.low && (key & prefix.y) == prefix.x) {
           atomicAdd(&bins[(key >> digit.x) & digit.y], amount_of(row, ${logit}));
         }`)
  }
      workgroupBarrier();
    }`;
}

/** Digits from the highest down: each thread owns some, and a scan gives it the sum of those above. */
function findDigit(threads: number): string {
  const own = BINS / threads;
  return `
    fn find_digit(t: u32, goal: u32) -> vec2<u32> {
      let highest_own = ${BINS - 1}u - t * ${own}u;
      ${unroll(own, (i) => `let amount${i} = atomicLoad(&bins[highest_own - ${i}u]);`)}
      let sum = ${Array.from({ length: own }, (_, i) => `amount${i}`).join(" + ")};
      reached[t] = sum;
      ${scan(threads)}
      workgroupBarrier();
      // Rounding may leave less in all than was asked for.
      let reachable = min(goal, reached[${threads - 1}]);
      var above = reached[t] - sum;
      ${
    unroll(own, (i) =>
      `if (above < reachable && reachable <= above + amount${i}) { found = vec2<u32>(highest_own - ${i}u, above); }
      above += amount${i};`)
  }
      return workgroupUniformLoad(&found);
    }`;
}

/** Statements that make `reached` its own running sum. */
function scan(threads: number): string {
  const steps: string[] = [];
  for (let step = 1; step < threads; step *= 2) {
    steps.push(`
      workgroupBarrier();
      let before${step} = select(0u, reached[max(t, ${step}u) - ${step}u], t >= ${step}u);
      workgroupBarrier();
      reached[t] += before${step};`);
  }
  return steps.join("");
}
