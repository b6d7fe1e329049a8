/**
 * One device for all tests of a file: opened before the first, closed after the last. Knows how to get numbers onto the
 * GPU and back; knows no kernel. Call `gpuFixture()` once, at the top of a test file.
 */

import { Gpu } from "../../kernels/gpu.ts";
import { Commands } from "../../kernels/pipeline.ts";
import { Scratch } from "../../kernels/scratch.ts";
import type { DType, Tensor } from "../../kernels/tensor.ts";
import { testProvider } from "./test_provider.ts";

/** What a test of a kernel needs. */
export interface GpuFixture {
  readonly gpu: Gpu;
  readonly commands: Commands;
  /** Working memory that lives as long as the device. */
  readonly scratch: Scratch;
  /** A tensor that holds the data; it is freed after the test. For f16 pass the halves as a `Uint16Array` or `Float16Array`. */
  upload(dtype: DType, data: ArrayBufferView<ArrayBuffer>, shape: readonly number[]): Tensor;
  /** A zeroed tensor; it is freed after the test. */
  zeros(dtype: DType, shape: readonly number[]): Tensor;
  /** Submits what was recorded and reads an f32 tensor, without its padding. */
  floats(tensor: Tensor): Promise<Float32Array<ArrayBuffer>>;
  /** Submits what was recorded and reads a u32 tensor, without its padding. */
  words(tensor: Tensor): Promise<Uint32Array<ArrayBuffer>>;
}

/**
 * Registers the hooks that open and close the device around the tests of the calling file.
 * The tests fail when there is no adapter: nothing is skipped.
 */
export function gpuFixture(): GpuFixture {
  const fixture = new Fixture();
  Deno.test.beforeAll(() => fixture.open());
  Deno.test.afterEach(() => fixture.clear());
  Deno.test.afterAll(() => fixture.close());
  return fixture;
}

interface Opened {
  readonly gpu: Gpu;
  readonly commands: Commands;
  readonly scratch: Scratch;
}

class Fixture implements GpuFixture {
  #opened: Opened | undefined;
  readonly #tensors: Tensor[] = [];

  async open(): Promise<void> {
    const gpu = await Gpu.open(testProvider());
    const commands = new Commands(gpu);
    this.#opened = { gpu, commands, scratch: new Scratch(commands) };
    await gpu.mapsSettled();
  }

  get gpu(): Gpu {
    return this.#open.gpu;
  }

  get commands(): Commands {
    return this.#open.commands;
  }

  get scratch(): Scratch {
    return this.#open.scratch;
  }

  get #open(): Opened {
    if (this.#opened === undefined) throw new Error("Cannot use the GPU fixture: no test is running");
    return this.#opened;
  }

  zeros(dtype: DType, shape: readonly number[]): Tensor {
    const tensor = this.gpu.tensor(`test tensor ${this.#tensors.length}`, dtype, shape);
    this.#tensors.push(tensor);
    return tensor;
  }

  upload(dtype: DType, data: ArrayBufferView<ArrayBuffer>, shape: readonly number[]): Tensor {
    const tensor = this.zeros(dtype, shape);
    this.gpu.write(tensor, data);
    return tensor;
  }

  async floats(tensor: Tensor): Promise<Float32Array<ArrayBuffer>> {
    return new Float32Array(await this.#bytes(tensor));
  }

  async words(tensor: Tensor): Promise<Uint32Array<ArrayBuffer>> {
    return new Uint32Array(await this.#bytes(tensor));
  }

  async clear(): Promise<void> {
    for (const tensor of this.#tensors.splice(0)) this.gpu.free(tensor);
    // The op sanitizer reports pending maps.
    await this.gpu.mapsSettled();
  }

  async close(): Promise<void> {
    await this.#opened?.gpu.close();
    this.#opened = undefined;
  }

  async #bytes(tensor: Tensor): Promise<ArrayBuffer> {
    this.commands.submit();
    const elements = tensor.shape.reduce((product, extent) => product * extent, 1);
    const [bytes] = await this.gpu.read([{ tensor, byteLength: elements * 4 }]);
    if (bytes === undefined) throw new Error(`Cannot read ${tensor.label}: nothing came back`);
    return bytes.buffer;
  }
}
