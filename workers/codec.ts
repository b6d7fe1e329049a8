/**
 * Frames: u32 header length, u32 payload length (little endian), a MessagePack header, then raw tensor bytes. Typed
 * arrays anywhere in a message travel in the payload, 16-byte aligned; the header holds their dtype, offset and length.
 * Knows bytes and typed arrays; knows nothing of connections or of what a message means.
 */

import { Decoder, Encoder, ExtensionCodec } from "@msgpack/msgpack";
import { ProtocolError } from "./errors.ts";
import { scanHeader } from "./header_scan.ts";

/** The longest frame that is read or written. */
export interface FrameLimits {
  readonly headerBytes: number;
  readonly payloadBytes: number;
}

/** The caps of the wire; a link may lower them. */
export const FRAME_LIMITS: FrameLimits = { headerBytes: 1 << 20, payloadBytes: 256 << 20 };

/** Bytes of the two lengths that open a frame. */
export const PREFIX_BYTES = 8;

const ALIGNMENT = 16;
const LITTLE_ENDIAN = true;

/** MessagePack extension type of a reference into the payload: u8 dtype, u32 offset, u32 elements, little endian. */
const TENSOR_EXTENSION = 1;
const REFERENCE_BYTES = 9;

/** By dtype number; both are four bytes an element, as the platform stores them (little endian everywhere). */
const DTYPES: readonly (new (buffer: ArrayBufferLike, offset: number, length: number) => Tensor)[] = [
  Uint32Array,
  Float32Array,
];
type Tensor = Uint32Array | Float32Array;
const ELEMENT_BYTES = 4;

/** Tensors of the message being encoded, and where the next one starts. */
interface Gathered {
  tensors: { readonly bytes: Uint8Array; readonly offset: number }[];
  bytes: number;
}

function gather(tensor: Tensor, dtype: number, into: Gathered): Uint8Array {
  const offset = Math.ceil(into.bytes / ALIGNMENT) * ALIGNMENT;
  into.tensors.push({ bytes: new Uint8Array(tensor.buffer, tensor.byteOffset, tensor.byteLength), offset });
  into.bytes = offset + tensor.byteLength;
  const reference = new DataView(new ArrayBuffer(REFERENCE_BYTES));
  reference.setUint8(0, dtype);
  reference.setUint32(1, offset, LITTLE_ENDIAN);
  reference.setUint32(5, tensor.length, LITTLE_ENDIAN);
  return new Uint8Array(reference.buffer);
}

function tensorAt(reference: Uint8Array, payload: ArrayBufferLike): Tensor {
  if (reference.length !== REFERENCE_BYTES) {
    throw new ProtocolError(`Cannot read tensor: its reference has ${reference.length} bytes, not ${REFERENCE_BYTES}`);
  }
  const view = new DataView(reference.buffer, reference.byteOffset, reference.byteLength);
  const dtype = view.getUint8(0);
  const offset = view.getUint32(1, LITTLE_ENDIAN);
  const length = view.getUint32(5, LITTLE_ENDIAN);
  const Dtype = DTYPES[dtype];
  if (Dtype === undefined) throw new ProtocolError(`Cannot read tensor: dtype ${dtype} is unknown`);
  if (offset % ALIGNMENT !== 0) throw new ProtocolError(`Cannot read tensor: offset ${offset} is not a multiple of 16`);
  const end = offset + length * ELEMENT_BYTES;
  if (end > payload.byteLength) {
    throw new ProtocolError(`Cannot read tensor: it ends at byte ${end} of a payload of ${payload.byteLength}`);
  }
  return new Dtype(payload, offset, length);
}

/** Both directions share one context, because encoding and decoding are synchronous and set it each time. */
interface Context {
  gathered: Gathered;
  payload: ArrayBufferLike;
}

const NO_PAYLOAD = new ArrayBuffer(0);
const context: Context = { gathered: { tensors: [], bytes: 0 }, payload: NO_PAYLOAD };

const extensionCodec = new ExtensionCodec<Context>();
extensionCodec.register({
  type: TENSOR_EXTENSION,
  encode(value, { gathered }) {
    if (!ArrayBuffer.isView(value)) return null;
    const dtype = DTYPES.findIndex((Dtype) => value instanceof Dtype);
    if (dtype < 0) throw new ProtocolError(`Cannot write frame: a ${value.constructor.name} has no dtype on the wire`);
    return gather(value as Tensor, dtype, gathered);
  },
  decode: (reference, _type, { payload }) => tensorAt(reference, payload),
});

const encoder = new Encoder<Context>({ extensionCodec, context, ignoreUndefined: true, initialBufferSize: 16384 });
const decoder = new Decoder<Context>({ extensionCodec, context });

/**
 * Makes one frame of a message, in pieces to be written back to back. Fields that are undefined are left out.
 * Does not copy large tensors: they must not change before the frame has left.
 * @param message plain data; its Uint32Array and Float32Array fields keep their type
 * @throws {ProtocolError} when the frame would exceed the limits or holds another kind of typed array
 */
export function encodePieces(message: unknown, limits: FrameLimits = FRAME_LIMITS): readonly Uint8Array[] {
  const gathered: Gathered = { tensors: [], bytes: 0 };
  context.gathered = gathered;
  const header = encoder.encodeSharedRef(message);
  context.gathered = { tensors: [], bytes: 0 };
  checkLengths("write", { headerBytes: header.length, payloadBytes: gathered.bytes }, limits);
  const prefix = new Uint8Array(PREFIX_BYTES);
  const lengths = new DataView(prefix.buffer);
  lengths.setUint32(0, header.length, LITTLE_ENDIAN);
  lengths.setUint32(4, gathered.bytes, LITTLE_ENDIAN);
  const pieces = new Pieces();
  pieces.add(prefix);
  // The encoder uses its buffer again for the next message.
  pieces.add(header.slice());
  let end = 0;
  for (const { bytes, offset } of gathered.tensors) {
    pieces.add(ZEROES.subarray(0, offset - end));
    pieces.add(bytes);
    end = offset + bytes.length;
  }
  return pieces.take();
}

/** From this size on a tensor is a piece of its own. */
const LARGE_BYTES = 32 << 10;

const ZEROES = new Uint8Array(ALIGNMENT);

/** Joins what is small, so that a small frame takes one write. */
class Pieces {
  readonly #pieces: Uint8Array[] = [];
  #small: Uint8Array[] = [];

  add(bytes: Uint8Array): void {
    if (bytes.length < LARGE_BYTES) {
      this.#small.push(bytes);
      return;
    }
    this.#join();
    this.#pieces.push(bytes);
  }

  take(): readonly Uint8Array[] {
    this.#join();
    return this.#pieces;
  }

  #join(): void {
    const joined = concat(this.#small);
    this.#small = [];
    if (joined.length > 0) this.#pieces.push(joined);
  }
}

function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/**
 * Reads the two lengths of a frame.
 * @param prefix 8 bytes
 * @throws {ProtocolError} when a length exceeds its limit: nothing has been allocated for it yet
 */
export function decodePrefix(prefix: Uint8Array, limits: FrameLimits = FRAME_LIMITS): FrameLimits {
  const view = new DataView(prefix.buffer, prefix.byteOffset, PREFIX_BYTES);
  const lengths = { headerBytes: view.getUint32(0, LITTLE_ENDIAN), payloadBytes: view.getUint32(4, LITTLE_ENDIAN) };
  checkLengths("read", lengths, limits);
  return lengths;
}

/**
 * Reads the message of a frame. Its typed arrays are views of `payload`, which lives as long as they do.
 * @throws {ProtocolError} when the header is no single MessagePack value or points outside the payload
 */
export function decodeMessage(header: Uint8Array, payload: ArrayBufferLike): unknown {
  scanHeader(header);
  context.payload = payload;
  try {
    return decoder.decode(header);
  } catch (cause) {
    if (cause instanceof ProtocolError) throw cause;
    throw new ProtocolError("Cannot read header: it is no valid MessagePack", { cause });
  } finally {
    context.payload = NO_PAYLOAD;
  }
}

function checkLengths(action: "read" | "write", lengths: FrameLimits, limits: FrameLimits): void {
  for (const part of ["headerBytes", "payloadBytes"] as const) {
    if (lengths[part] > limits[part]) {
      const name = part === "headerBytes" ? "header" : "payload";
      throw new ProtocolError(
        `Cannot ${action} frame: its ${name} of ${lengths[part]} bytes exceeds the limit of ${limits[part]}`,
      );
    }
  }
  if (lengths.headerBytes === 0) throw new ProtocolError(`Cannot ${action} frame: its header is empty`);
}
