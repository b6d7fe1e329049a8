/** Tensors of f32 on a device of their own, for tests of what moves them about. */

import { Gpu } from "../../kernels/gpu.ts";
import { Commands } from "../../kernels/pipeline.ts";
import { sizeOf, type Tensor } from "../../kernels/tensor.ts";
import { settleMaps } from "./engine_fixture.ts";
import { testProvider } from "./test_provider.ts";

/** See the top of this file; `close` must be called */
export class GpuTensors {
  readonly commands: Commands;

  private constructor(commands: Commands) {
    this.commands = commands;
  }

  static async open(): Promise<GpuTensors> {
    return new GpuTensors(new Commands(await Gpu.open(testProvider())));
  }

  tensor(label: string, shape: readonly number[], values?: Float32Array<ArrayBuffer>): Tensor {
    const tensor = this.commands.gpu.tensor(label, "f32", shape);
    if (values !== undefined) this.commands.gpu.write(tensor, values);
    return tensor;
  }

  async values(tensor: Tensor): Promise<Float32Array<ArrayBuffer>> {
    this.commands.submit();
    const byteLength = 4 * sizeOf(tensor.shape);
    const [bytes] = await this.commands.gpu.read([{ tensor, byteLength }]);
    if (bytes === undefined) throw new Error(`Cannot read ${tensor.label}: nothing came back`);
    return new Float32Array(bytes.buffer, bytes.byteOffset, byteLength / 4);
  }

  async close(): Promise<void> {
    await settleMaps(this);
    await this.commands.gpu.close();
  }
}
