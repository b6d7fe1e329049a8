/** Takes numbers and strings from the bytes of a header, each within the file; what a file claims is never trusted. */

import { EngineError } from "../../errors.ts";

/** Thrown when the bytes at hand end before the header does; the file may have more. */
export class MoreBytesNeeded extends Error {
  override readonly name = "MoreBytesNeeded";
  /** From the start of the file. */
  readonly bytes: number;

  constructor(bytes: number) {
    super(`${bytes} bytes needed`);
    this.bytes = bytes;
  }
}

/** What the reader reads. */
export interface ReaderInput {
  /** The file's first bytes. */
  readonly bytes: Uint8Array;
  readonly fileBytes: number;
  /** The file, for messages. */
  readonly source: string;
}

const LITTLE_ENDIAN = true;
const UTF8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** A position in the first bytes of a file. */
export class ByteReader {
  readonly #input: ReaderInput;
  readonly #view: DataView;
  #position = 0;

  constructor(input: ReaderInput) {
    this.#input = input;
    const { buffer, byteOffset, byteLength } = input.bytes;
    this.#view = new DataView(buffer, byteOffset, byteLength);
  }

  get position(): number {
    return this.#position;
  }

  /** The error for something that is not what it should be. */
  invalid(what: string): EngineError {
    return new EngineError("invalid_model", `Cannot read ${this.#input.source}: ${what}`);
  }

  /**
   * Checks that so many bytes can follow.
   * @param what names them in messages
   * @throws {EngineError} `invalid_model` when the file is too short for them
   */
  expect(bytes: number, what: string): void {
    const left = this.#input.fileBytes - this.#position;
    if (bytes > left) {
      throw this.invalid(`${what} must fit in the ${left} bytes left of the file, given ${bytes} bytes`);
    }
  }

  u8(what: string): number {
    return this.#view.getUint8(this.#take(1, what));
  }

  i8(what: string): number {
    return this.#view.getInt8(this.#take(1, what));
  }

  u16(what: string): number {
    return this.#view.getUint16(this.#take(2, what), LITTLE_ENDIAN);
  }

  i16(what: string): number {
    return this.#view.getInt16(this.#take(2, what), LITTLE_ENDIAN);
  }

  u32(what: string): number {
    return this.#view.getUint32(this.#take(4, what), LITTLE_ENDIAN);
  }

  i32(what: string): number {
    return this.#view.getInt32(this.#take(4, what), LITTLE_ENDIAN);
  }

  f32(what: string): number {
    return this.#view.getFloat32(this.#take(4, what), LITTLE_ENDIAN);
  }

  f64(what: string): number {
    return this.#view.getFloat64(this.#take(8, what), LITTLE_ENDIAN);
  }

  /** Beyond 2⁵³ it is rounded, which every bound refuses. */
  u64(what: string): number {
    return Number(this.#view.getBigUint64(this.#take(8, what), LITTLE_ENDIAN));
  }

  i64(what: string): number {
    return Number(this.#view.getBigInt64(this.#take(8, what), LITTLE_ENDIAN));
  }

  /**
   * A count or length of at most `max`.
   * @throws {EngineError} `invalid_model` when it exceeds that
   */
  count(max: number, what: string): number {
    const value = this.u64(what);
    if (value > max) throw this.invalid(`${what} must be at most ${max}, given ${value}`);
    return value;
  }

  /** A string of at most `maxBytes`; bytes that are not UTF-8 become U+FFFD. */
  string(maxBytes: number, what: string): string {
    const length = this.count(maxBytes, `the length of ${what}`);
    const at = this.#take(length, what);
    return UTF8.decode(this.#input.bytes.subarray(at, at + length));
  }

  #take(bytes: number, what: string): number {
    this.expect(bytes, what);
    const at = this.#position;
    if (at + bytes > this.#input.bytes.length) throw new MoreBytesNeeded(at + bytes);
    this.#position = at + bytes;
    return at;
  }
}
