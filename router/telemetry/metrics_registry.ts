/**
 * Counters, gauges and histograms, kept once and reported twice: as Prometheus text, and to a mirror as they happen.
 * Knows numbers and labels; knows nothing of requests, and of OpenTelemetry only that there may be a mirror.
 */

/** Label name → value; a label left out is not written. */
export type Labels = Readonly<Record<string, string>>;

/** What an instrument is. */
export interface InstrumentDefinition {
  /** As Prometheus has it: a counter ends in `_total`, a time in `_seconds`. */
  readonly name: string;
  readonly help: string;
  readonly kind: "counter" | "gauge" | "histogram";
  /** Upper bounds, ascending; empty unless it is a histogram. */
  readonly buckets: readonly number[];
}

/** One value of an observed instrument. */
export interface Reading {
  readonly value: number;
  readonly labels?: Labels;
}

/** Another consumer of the same figures. */
export interface Mirror {
  /** @returns what gets every amount added and every value observed, at that moment */
  record(instrument: InstrumentDefinition): (value: number, labels: Labels) => void;
  /** @param read gives the values of this moment; for the mirror to call when it collects */
  observe(instrument: InstrumentDefinition, read: () => readonly Reading[]): void;
}

/** Other names, under which the text reports some instruments again. */
export interface Aliases {
  /** By our names. */
  readonly names: ReadonlyMap<string, string>;
  /** What the values carry under those names in place of their own labels. */
  readonly labels: (own: Labels) => Labels;
}

/** Only ever grows. */
export interface Counter {
  add(amount: number, labels?: Labels): void;
}

/** How values are spread. */
export interface Histogram {
  observe(value: number, labels?: Labels): void;
}

/** All instruments of a service. */
export class MetricsRegistry {
  readonly #constant: Labels;
  readonly #mirror: Mirror | undefined;
  readonly #aliases: Aliases | undefined;
  readonly #instruments = new Map<string, Instrument>();

  /** @param constant labels that every value carries */
  constructor(constant: Labels, mirror?: Mirror, aliases?: Aliases) {
    this.#constant = constant;
    this.#mirror = mirror;
    this.#aliases = aliases;
  }

  /** A counter that nothing was added to is 0, not absent. */
  counter(name: string, help: string): Counter {
    const instrument = this.#add({ name, help, kind: "counter", buckets: [] });
    return {
      add: (amount, labels = {}) => {
        if (amount > 0) instrument.record(amount, labels);
      },
    };
  }

  /**
   * Something that is known elsewhere: read whenever it is scraped.
   * @param read no reading at all means that it is not known now
   */
  observed(
    kind: "counter" | "gauge",
    name: string,
    about: { readonly help: string; read(): readonly Reading[] },
  ): void {
    const definition = { name, help: about.help, kind, buckets: [] };
    this.#place(definition, new ObservedInstrument(definition, about.read));
    this.#mirror?.observe(
      definition,
      () => about.read().map(({ value, labels }) => ({ value, labels: { ...this.#constant, ...labels } })),
    );
  }

  /** @param buckets upper bounds, ascending; +Inf is added */
  histogram(name: string, help: string, buckets: readonly number[]): Histogram {
    const instrument = this.#add({ name, help, kind: "histogram", buckets });
    return { observe: (value, labels = {}) => instrument.record(value, labels) };
  }

  /** The Prometheus text format, version 0.0.4. */
  text(): string {
    const own = [...this.#instruments.values()].flatMap((instrument) =>
      instrument.lines((own) => ({ ...this.#constant, ...own }))
    );
    return [...own, ...this.#aliasLines()].join("\n") + "\n";
  }

  /** Some instruments once more, under other names. */
  #aliasLines(): readonly string[] {
    if (this.#aliases === undefined) return [];
    const { names, labels } = this.#aliases;
    return [...names].flatMap(([name, alias]) => {
      const lines = this.#instruments.get(name)?.lines((own) => labels({ ...this.#constant, ...own })) ?? [];
      // A name is the first word that can be it, in heads and in values alike.
      return lines.map((line) => line.replace(name, alias));
    });
  }

  #add(definition: InstrumentDefinition): RecordedInstrument {
    const mirrored = this.#mirror?.record(definition);
    const told = (value: number, labels: Labels) => mirrored?.(value, { ...this.#constant, ...labels });
    const instrument = new RecordedInstrument(definition, told);
    this.#place(definition, instrument);
    return instrument;
  }

  #place({ name }: InstrumentDefinition, instrument: Instrument): void {
    if (this.#instruments.has(name)) throw new Error(`Cannot add ${name}: it exists already`);
    this.#instruments.set(name, instrument);
  }
}

interface Instrument {
  /** Lines of the text format. @param shown the labels of a value as they are written, by its own */
  lines(shown: (own: Labels) => Labels): readonly string[];
}

class ObservedInstrument implements Instrument {
  readonly #definition: InstrumentDefinition;
  readonly #read: () => readonly Reading[];

  constructor(definition: InstrumentDefinition, read: () => readonly Reading[]) {
    this.#definition = definition;
    this.#read = read;
  }

  lines(shown: (own: Labels) => Labels): readonly string[] {
    const { name } = this.#definition;
    const values = this.#read().map(({ value, labels }) => `${name}${braces(shown(labels ?? {}))} ${value}`);
    return [...head(this.#definition), ...values];
  }
}

/** Values with the same labels. */
interface Series {
  readonly labels: Labels;
  /** The sum of a histogram. */
  value: number;
  /** Observations per bucket, not cumulated; the last one is +Inf. Empty unless it is a histogram. */
  readonly counts: number[];
}

class RecordedInstrument implements Instrument {
  readonly #definition: InstrumentDefinition;
  readonly #told: (value: number, labels: Labels) => void;
  readonly #series = new Map<string, Series>();

  constructor(definition: InstrumentDefinition, told: (value: number, labels: Labels) => void) {
    this.#definition = definition;
    this.#told = told;
  }

  record(value: number, labels: Labels): void {
    const { kind, buckets } = this.#definition;
    const series = this.#seriesOf(labels);
    series.value += value;
    if (kind === "histogram") {
      const bucket = buckets.findIndex((bound) => value <= bound);
      const index = bucket < 0 ? buckets.length : bucket;
      series.counts[index] = (series.counts[index] ?? 0) + 1;
    }
    this.#told(value, labels);
  }

  lines(shown: (own: Labels) => Labels): readonly string[] {
    const { kind } = this.#definition;
    const untouched: readonly Series[] = kind === "counter" ? [{ labels: {}, value: 0, counts: [] }] : [];
    const all = this.#series.size === 0 ? untouched : [...this.#series.values()];
    const values = all.flatMap((series) => this.#seriesLines(series, shown(series.labels)));
    return [...head(this.#definition), ...values];
  }

  #seriesLines(series: Series, labels: Labels): readonly string[] {
    const { name, kind, buckets } = this.#definition;
    if (kind !== "histogram") return [`${name}${braces(labels)} ${series.value}`];
    let count = 0;
    const lines = [...buckets, Infinity].map((bound, i) => {
      count += series.counts[i] ?? 0;
      return `${name}_bucket${braces({ ...labels, le: bound === Infinity ? "+Inf" : String(bound) })} ${count}`;
    });
    return [...lines, `${name}_sum${braces(labels)} ${series.value}`, `${name}_count${braces(labels)} ${count}`];
  }

  #seriesOf(labels: Labels): Series {
    const key = JSON.stringify(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)));
    const present = this.#series.get(key);
    if (present !== undefined) return present;
    const counts = this.#definition.kind === "histogram" ? [...this.#definition.buckets.map(() => 0), 0] : [];
    const series: Series = { labels, value: 0, counts };
    this.#series.set(key, series);
    return series;
  }
}

function head({ name, help, kind }: InstrumentDefinition): readonly string[] {
  return [`# HELP ${name} ${escape(help)}`, `# TYPE ${name} ${kind}`];
}

function escape(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

function braces(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escape(value).replaceAll('"', '\\"')}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}
