/** The last minutes of a group: what `/metrics` says each second, as rates and levels to plot. */

import { Observable } from "../frame/observable.ts";
import type { Service } from "../service/service.ts";
import { parseMetrics, type Samples, total } from "./metric_samples.ts";

/** What is plotted. */
export interface Series {
  readonly title: string;
  readonly unit: string;
  readonly lines: readonly { readonly label: string; readonly of: (now: Samples, before: Samples) => number }[];
}

const rate = (name: string, labels?: Readonly<Record<string, string>>) => (now: Samples, before: Samples): number =>
  Math.max(0, total(now, name, labels) - total(before, name, labels)) * 1000 / LOOK_EVERY_MS;

const level = (name: string, labels?: Readonly<Record<string, string>>) => (now: Samples): number =>
  total(now, name, labels);

/** Growth of one metric by growth of another: the mean of what was counted since. */
const mean = (sum: string, count: string, factor: number) => (now: Samples, before: Samples): number => {
  const counted = total(now, count) - total(before, count);
  return counted <= 0 ? 0 : (total(now, sum) - total(before, sum)) / counted * factor;
};

const LOOK_EVERY_MS = 1000;

/** Five minutes. */
const MAX_MOMENTS = 300;

/** All plots, in their order. */
export const SERIES: readonly Series[] = [
  {
    title: "Tokens",
    unit: "/s",
    lines: [
      { label: "written", of: rate("tidepool_generation_tokens_total") },
      { label: "read", of: rate("tidepool_prefilled_rows_total") },
    ],
  },
  { title: "Steps", unit: "/s", lines: [{ label: "steps", of: rate("tidepool_step_seconds_count") }] },
  {
    title: "Step time",
    unit: "ms",
    lines: [
      { label: "step", of: mean("tidepool_step_seconds_sum", "tidepool_step_seconds_count", 1000) },
      { label: "exchange", of: mean("tidepool_exchange_seconds_total", "tidepool_step_seconds_count", 1000) },
    ],
  },
  {
    title: "Requests",
    unit: "",
    lines: [
      { label: "running", of: level("tidepool_num_requests_running") },
      { label: "waiting", of: level("tidepool_num_requests_waiting") },
    ],
  },
  {
    title: "Pages",
    unit: "",
    lines: [
      { label: "running", of: level("tidepool_kv_pages", { state: "running" }) },
      { label: "prefix cache", of: level("tidepool_kv_pages", { state: "prefix" }) },
    ],
  },
  { title: "Rows corrected", unit: "/s", lines: [{ label: "rows", of: rate("tidepool_corrected_rows_total") }] },
];

/** The moments so far: seconds since 1970, and for each series and line its values. */
export interface Moments {
  readonly times: readonly number[];
  readonly values: readonly (readonly (readonly number[])[])[];
  readonly newest: Samples;
}

/** Looks while it is started. */
export class GroupHistory {
  readonly moments: Observable<Moments> = new Observable<Moments>({
    times: [],
    values: SERIES.map(({ lines }) => lines.map(() => [])),
    newest: new Map(),
  });
  readonly #service: Service;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isOn = false;

  constructor(service: Service) {
    this.#service = service;
  }

  start(): void {
    this.#isOn = true;
    void this.#look();
  }

  stop(): void {
    this.#isOn = false;
    clearTimeout(this.#timer);
  }

  async #look(): Promise<void> {
    try {
      this.#add(parseMetrics(await this.#service.metrics()));
    } catch {
      // The header says that the service is away; the plots keep what they have.
    }
    if (this.#isOn) this.#timer = setTimeout(() => void this.#look(), LOOK_EVERY_MS);
  }

  #add(now: Samples): void {
    const { times, values, newest } = this.moments.value;
    const cut = <Item>(items: readonly Item[]) => items.slice(-MAX_MOMENTS);
    if (newest.size === 0) return this.moments.set({ times, values, newest: now });
    this.moments.set({
      times: cut([...times, Date.now() / 1000]),
      values: SERIES.map(({ lines }, i) => lines.map(({ of }, j) => cut([...values[i]?.[j] ?? [], of(now, newest)]))),
      newest: now,
    });
  }
}
