/** What the names of drivers tell. */

import assert from "node:assert/strict";

import { loadsByLane } from "../../kernels/gpu_info.ts";

Deno.test("loadsByLane() knows the drivers for the CPU whose loads cost most, by the LLVM they were built with", () => {
  const names = [
    "llvmpipe (LLVM 15.0.6, 256 bits)",
    "llvmpipe (LLVM 9.0.1, 128 bits)",
    "llvmpipe (LLVM 19.1.7, 256 bits)",
    "llvmpipe: Mesa 25.0.7-2 (LLVM 15.0.6)",
    "NVIDIA H200",
  ];
  assert.deepEqual(names.map(loadsByLane), [true, true, false, false, false]);
});
