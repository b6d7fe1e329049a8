/** Sound safetensors files, made from tensors. Files that lie are made where they are tested. */

/** A tensor to be written. */
export interface NewTensor {
  readonly name: string;
  /** Outermost first. */
  readonly shape: readonly number[];
  readonly dtype: "F16" | "BF16" | "F32";
  /** As long as shape and type say. */
  readonly data: Uint16Array<ArrayBuffer> | Float32Array<ArrayBuffer>;
}

const LITTLE_ENDIAN = true;
const HEADER_MULTIPLE = 8;

/** The bytes of a file. */
export function encodeSafetensors(tensors: readonly NewTensor[]): Uint8Array<ArrayBuffer> {
  let end = 0;
  const header = Object.fromEntries(tensors.map(({ name, shape, dtype, data }) => {
    const start = end;
    end += data.byteLength;
    return [name, { dtype, shape, "data_offsets": [start, end] }];
  }));
  const json = JSON.stringify(header);
  const padded = json.padEnd(Math.ceil(json.length / HEADER_MULTIPLE) * HEADER_MULTIPLE);
  const file = new Uint8Array(HEADER_MULTIPLE + padded.length + end);
  new DataView(file.buffer).setUint32(0, padded.length, LITTLE_ENDIAN);
  file.set(new TextEncoder().encode(padded), HEADER_MULTIPLE);
  let at = HEADER_MULTIPLE + padded.length;
  for (const { data } of tensors) {
    file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return file;
}
