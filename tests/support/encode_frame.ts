/** Frames in one piece, for tests that cut, garble or measure them. */

import { encodePieces, FRAME_LIMITS, type FrameLimits } from "../../workers/codec.ts";

/** The pieces of a frame joined, with everything copied. */
export function encodeFrame(message: unknown, limits: FrameLimits = FRAME_LIMITS): Uint8Array<ArrayBuffer> {
  const pieces = encodePieces(message, limits);
  const frame = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    frame.set(piece, at);
    at += piece.length;
  }
  return frame;
}
