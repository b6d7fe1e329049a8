/**
 * Walks MessagePack bytes without decoding them, so that a decoder is never asked to allocate what a peer merely claims.
 * Knows the format's lengths; knows nothing of what the values mean.
 */

import { ProtocolError } from "./errors.ts";

/** How far a value reaches: bytes of its own after the first byte, and how many values follow inside it. */
interface Extent {
  readonly bytes: number;
  readonly values: number;
}

/** Fixed-size formats 0xc0 and 0xca–0xd8: bytes after the first one. 0xc1 is never used, so it is not here. */
const FIXED: Readonly<Record<number, number>> = {
  0xc0: 0,
  0xc2: 0,
  0xc3: 0,
  0xca: 4,
  0xcb: 8,
  0xcc: 1,
  0xcd: 2,
  0xce: 4,
  0xcf: 8,
  0xd0: 1,
  0xd1: 2,
  0xd2: 4,
  0xd3: 8,
  0xd4: 2,
  0xd5: 3,
  0xd6: 5,
  0xd7: 9,
  0xd8: 17,
};

/** Formats with a length field: its width, and what it counts. An extension has one more byte, its type. */
const SIZED: Readonly<Record<number, { width: 1 | 2 | 4; counts: "bytes" | "extension" | "values" | "pairs" }>> = {
  0xc4: { width: 1, counts: "bytes" },
  0xc5: { width: 2, counts: "bytes" },
  0xc6: { width: 4, counts: "bytes" },
  0xc7: { width: 1, counts: "extension" },
  0xc8: { width: 2, counts: "extension" },
  0xc9: { width: 4, counts: "extension" },
  0xd9: { width: 1, counts: "bytes" },
  0xda: { width: 2, counts: "bytes" },
  0xdb: { width: 4, counts: "bytes" },
  0xdc: { width: 2, counts: "values" },
  0xdd: { width: 4, counts: "values" },
  0xde: { width: 2, counts: "pairs" },
  0xdf: { width: 4, counts: "pairs" },
};

function sizedExtent(view: DataView, at: number, first: number): Extent {
  const format = SIZED[first];
  if (format === undefined) {
    throw new ProtocolError(`Cannot read header: byte 0x${first.toString(16)} at ${at} starts no value`);
  }
  const { width, counts } = format;
  if (at + 1 + width > view.byteLength) throw new ProtocolError(`Cannot read header: it ends in a length at ${at}`);
  const length = width === 1 ? view.getUint8(at + 1) : width === 2 ? view.getUint16(at + 1) : view.getUint32(at + 1);
  switch (counts) {
    case "bytes":
      return { bytes: width + length, values: 0 };
    case "extension":
      return { bytes: width + 1 + length, values: 0 };
    case "values":
      return { bytes: width, values: length };
    case "pairs":
      return { bytes: width, values: 2 * length };
  }
}

function extentAt(view: DataView, at: number): Extent {
  const first = view.getUint8(at);
  if (first <= 0x7f || first >= 0xe0) return { bytes: 0, values: 0 };
  if (first <= 0x8f) return { bytes: 0, values: 2 * (first & 0x0f) };
  if (first <= 0x9f) return { bytes: 0, values: first & 0x0f };
  if (first <= 0xbf) return { bytes: first & 0x1f, values: 0 };
  const fixed = FIXED[first];
  return fixed === undefined ? sizedExtent(view, at, first) : { bytes: fixed, values: 0 };
}

/**
 * Checks that the bytes hold exactly one value and that every claimed length fits. Since each value takes at least one
 * byte, a decoder then allocates no more entries than there are bytes.
 * @throws {ProtocolError} truncated, trailing bytes, or a length beyond the end
 */
export function scanHeader(header: Uint8Array): void {
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  let at = 0;
  let missing = 1;
  while (missing > 0) {
    if (missing > header.length - at) {
      throw new ProtocolError(
        `Cannot read header: ${missing} values are missing, ${header.length - at} bytes are left`,
      );
    }
    const { bytes, values } = extentAt(view, at);
    at += 1 + bytes;
    missing += values - 1;
    if (at > header.length) {
      throw new ProtocolError(`Cannot read header: a value ends at ${at} of ${header.length} bytes`);
    }
  }
  if (at < header.length) throw new ProtocolError(`Cannot read header: ${header.length - at} bytes follow its value`);
}
