/** What `bench --profile` shows: the parts of each step, and its kernels. Knows figures; measures nothing. */

import { percent } from "../markdown_table.ts";
import type { Table } from "./correction_tables.ts";
import type { ProfileFigures, StepProfile } from "./profile.ts";

const BUDGET_COLUMNS = [
  "context",
  "work",
  "step ms",
  "kernels ms",
  "between dispatches ms",
  "between passes ms",
  "host ms",
  "one ahead: step ms",
  "GPU idle",
];

const KERNEL_COLUMNS = [
  "context",
  "work",
  "kernel",
  "dispatches",
  "ms/step",
  "share of kernels",
  "GB/s",
  "TFLOP/s",
  "of ceiling",
];

/** The budget of every step, then the kernels of all. */
export function profileTables({ steps }: ProfileFigures): Table[] {
  return [
    { columns: BUDGET_COLUMNS, rows: steps.map(budgetRow) },
    { columns: KERNEL_COLUMNS, rows: steps.flatMap(kernelRows) },
  ];
}

/** The ceilings that shares are of, and how the parts are found. */
export function profileNotes({ adapter, ceilings }: ProfileFigures): string[] {
  const { readGigabytesPerSecond: read, fmaTeraflopPerSecond: fma } = ceilings;
  return [
    "",
    `* Ceilings of ${adapter}, measured in this run: streaming reads ${figure(read)} GB/s, vec4<f32> multiply-adds ` +
    `${figure(fma)} TFLOP/s. A kernel's share is of the one that binds it; caches may lift it above 100 %.`,
    "* The parts add up to the step, on an engine in this process (no wire). Kernels: each in a pass of its own, on the GPU's " +
    "clock. Between dispatches: the passes as they are, less the kernels. Between passes: the GPU waits for a submit. Host: " +
    "before the first pass and after the last. One ahead: each step recorded while the one before runs, as the service decodes.",
  ];
}

function budgetRow({ work, context, budget, ahead }: StepProfile): string[] {
  const { stepMs, kernelsMs, betweenDispatchesMs, betweenPassesMs, hostMs } = budget;
  const parts = [stepMs, kernelsMs, betweenDispatchesMs, betweenPassesMs, hostMs];
  const whileNext = ahead === undefined ? ["–", "–"] : [ahead.stepMs.toFixed(3), percent(ahead.idleShare, 0)];
  return [`${context}`, work, ...parts.map((ms) => ms.toFixed(3)), ...whileNext];
}

function kernelRows({ work, context, budget, kernels }: StepProfile): string[][] {
  return kernels.map(({ name, count, msPerStep, gigabytesPerSecond, teraflopPerSecond, ceilingShare }) => [
    `${context}`,
    work,
    name,
    figure(count),
    msPerStep.toFixed(3),
    percent(msPerStep / budget.kernelsMs, 0),
    gigabytesPerSecond === undefined ? "–" : figure(gigabytesPerSecond),
    teraflopPerSecond === undefined ? "–" : figure(teraflopPerSecond),
    ceilingShare === undefined ? "–" : percent(ceilingShare, 0),
  ]);
}

function figure(value: number): string {
  return `${Number(value.toPrecision(3))}`;
}
