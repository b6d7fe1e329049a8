/** GGUF files made by hand, sound or not: every count and length can be a lie. */

/** A value of metadata; what is left out is not written. */
export interface GgufValue {
  readonly type: number;
  readonly value?: string | number;
  /** Claimed length of a string that is not there. */
  readonly length?: bigint;
  readonly elementType?: number;
  /** Claimed number of elements; those of `values` follow. */
  readonly count?: bigint;
  readonly values?: readonly (string | number)[];
}

/** What is written, in this order. */
export interface GgufParts {
  readonly magic?: number;
  readonly version?: number;
  readonly tensorCount?: bigint;
  readonly keyCount?: bigint;
  readonly metadata: readonly (readonly [key: string, value: GgufValue])[];
  readonly tensors: readonly {
    readonly name: string;
    /** Outermost first. */
    readonly shape: readonly number[];
    readonly type: number;
    readonly offset: number;
  }[];
  readonly dataBytes: number;
  /** @default zeros */
  readonly data?: Uint8Array;
}

const STRING = 8;
const F32 = 6;
const BOOL = 7;
const ARRAY = 9;
const I32 = 5;
const ALIGNMENT = 32;
const LITTLE_ENDIAN = true;

class Writer {
  readonly bytes: number[] = [];

  u32(value: number): void {
    const view = new DataView(new ArrayBuffer(4));
    view.setUint32(0, value, LITTLE_ENDIAN);
    this.#add(view);
  }

  u64(value: bigint): void {
    const view = new DataView(new ArrayBuffer(8));
    view.setBigUint64(0, value, LITTLE_ENDIAN);
    this.#add(view);
  }

  string(text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.u64(BigInt(bytes.length));
    for (const byte of bytes) this.bytes.push(byte);
  }

  scalar(type: number, value: string | number): void {
    if (type === STRING) this.string(String(value));
    else if (type === BOOL) this.bytes.push(Number(value));
    else if (type === F32) {
      const view = new DataView(new ArrayBuffer(4));
      view.setFloat32(0, Number(value), LITTLE_ENDIAN);
      this.#add(view);
    } else this.u32(Number(value));
  }

  #add({ buffer }: DataView<ArrayBuffer>): void {
    for (const byte of new Uint8Array(buffer)) this.bytes.push(byte);
  }
}

/** The bytes of a file. */
export function encodeGguf(parts: GgufParts): Uint8Array<ArrayBuffer> {
  const { metadata, tensors, dataBytes } = parts;
  const writer = new Writer();
  writer.u32(parts.magic ?? 0x46554747);
  writer.u32(parts.version ?? 3);
  writer.u64(parts.tensorCount ?? BigInt(tensors.length));
  writer.u64(parts.keyCount ?? BigInt(metadata.length));
  for (const [key, value] of metadata) {
    writer.string(key);
    writer.u32(value.type);
    if (value.type === ARRAY) {
      const { elementType = STRING, values = [] } = value;
      writer.u32(elementType);
      writer.u64(value.count ?? BigInt(values.length));
      for (const element of values) writer.scalar(elementType, element);
    } else if (value.length !== undefined) writer.u64(value.length);
    else if (value.value !== undefined) writer.scalar(value.type, value.value);
  }
  for (const { name, shape, type, offset } of tensors) {
    writer.string(name);
    writer.u32(shape.length);
    for (const size of shape.toReversed()) writer.u64(BigInt(size));
    writer.u32(type);
    writer.u64(BigInt(offset));
  }
  const padding = (ALIGNMENT - writer.bytes.length % ALIGNMENT) % ALIGNMENT;
  const file = new Uint8Array(writer.bytes.length + padding + dataBytes);
  file.set(writer.bytes);
  if (parts.data !== undefined) file.set(parts.data, writer.bytes.length + padding);
  return file;
}

/** Metadata of a list. */
export function listOf(
  elementType: typeof STRING | typeof F32 | typeof I32,
  values: readonly (string | number)[],
): GgufValue {
  return { type: ARRAY, elementType, values };
}
