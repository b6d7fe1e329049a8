/**
 * The 16-bit floats of weights and caches, converted exactly on the host. Knows bit patterns; knows no tensors.
 */

/** The largest finite f16. */
export const MAX_HALF = 65504;
/** The pattern of the largest bf16 within it, 65280. */
export const MAX_BF16_IN_HALF = 0x477f;

/** The f16 bit patterns nearest to the values; ties go to the even one, what exceeds the range becomes an infinity. */
export function toHalf(values: ArrayLike<number>): Uint16Array<ArrayBuffer> {
  return new Uint16Array(Float16Array.from(values).buffer);
}

/** The values of f16 bit patterns, exactly. */
export function fromHalf(halves: Uint16Array): Float32Array<ArrayBuffer> {
  return new Float32Array(new Float16Array(halves.buffer, halves.byteOffset, halves.length));
}

/** The values of bf16 bit patterns, exactly: a bf16 is the upper half of an f32. */
export function bf16ToF32(patterns: Uint16Array): Float32Array<ArrayBuffer> {
  const words = new Uint32Array(patterns.length);
  for (let i = 0; i < patterns.length; i++) words[i] = (patterns[i] ?? 0) << 16;
  return new Float32Array(words.buffer);
}

/** The f16 nearest to each bf16; what exceeds the range becomes an infinity. A table: four times as fast as by way of f32. */
export function bf16ToHalf(patterns: Uint16Array): Uint16Array<ArrayBuffer> {
  halfOfBf16 ??= toHalf(bf16ToF32(Uint16Array.from({ length: 65536 }, (_, pattern) => pattern)));
  const table = halfOfBf16;
  const halves = new Uint16Array(patterns.length);
  for (let i = 0; i < halves.length; i++) halves[i] = table[patterns[i] ?? 0] ?? 0;
  return halves;
}

/** Made at its first use. */
let halfOfBf16: Uint16Array | undefined;
