/**
 * Whether all numbers of a piece of a weight file are small enough, found two 16-bit numbers at a time: the magnitudes
 * of f16, bf16 and f32 grow with their bits below the sign, and infinities and NaN are the largest. Knows bit patterns.
 */

/**
 * Whether the magnitude of every 16-bit number is below a pattern.
 *
 * @param data little-endian, starting at any byte offset; an even number of bytes
 * @param bound bits without the sign: 0x7c00 for finite f16, 0x7f80 for finite bf16
 */
export function halvesBelow(data: Uint8Array<ArrayBuffer>, bound: number): boolean {
  const lift = 0x8000 - bound;
  // A magnitude that reaches the bound carries into the bit of the sign, which was cleared, and no further.
  const over = lifted(data, 0x7fff7fff, lift << 16 | lift) & 0x80008000;
  const last = data.byteLength % 4 === 0 ? 0 : lastHalf(data) & 0x7fff;
  return over === 0 && last < bound;
}

/**
 * Whether every f32 is finite.
 *
 * @param data little-endian, starting at any byte offset; a multiple of 4 bytes
 */
export function floatsFinite(data: Uint8Array<ArrayBuffer>): boolean {
  return lifted(data, 0x7fffffff, 0x00800000) >= 0;
}

/** The union of the bits of `(word & mask) + lift` over all whole words. Four chains: one would wait for itself. */
function lifted(data: Uint8Array<ArrayBuffer>, mask: number, lift: number): number {
  const { buffer, byteOffset, byteLength } = data.byteOffset % 4 === 0 ? data : data.slice();
  const words = new Int32Array(buffer, byteOffset, byteLength >> 2);
  const unrolled = words.length & ~3;
  let [a, b, c, d] = [0, 0, 0, 0];
  let i = 0;
  for (; i < unrolled; i += 4) {
    a |= ((words[i] as number) & mask) + lift | 0;
    b |= ((words[i + 1] as number) & mask) + lift | 0;
    c |= ((words[i + 2] as number) & mask) + lift | 0;
    d |= ((words[i + 3] as number) & mask) + lift | 0;
  }
  for (; i < words.length; i++) a |= ((words[i] as number) & mask) + lift | 0;
  return a | b | c | d;
}

function lastHalf(data: Uint8Array): number {
  return (data.at(-1) ?? 0) << 8 | (data.at(-2) ?? 0);
}
