/**
 * Randomness without state: a number for a counter, the same on the GPU and on the host. Knows bits; knows nothing of
 * what is drawn with them. The mixer is the output function of PCG-RXS-M-XS on 32 bits, after one step of its generator.
 */

/** Declares `mix(counter: u32) -> u32` in WGSL. */
export const MIX = `
      fn mix(counter: u32) -> u32 {
        let state = counter * 747796405u + 2891336453u;
        let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
        return (word >> 22u) ^ word;
      }`;

/** The same on the host. */
export function mix(counter: number): number {
  const state = (Math.imul(counter, 747796405) + 2891336453) >>> 0;
  const word = Math.imul((state >>> ((state >>> 28) + 4)) ^ state, 277803737) >>> 0;
  return ((word >>> 22) ^ word) >>> 0;
}
