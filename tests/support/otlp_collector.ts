/** What processes export over OTLP while this server stands. */

/** Of a span or a point. */
export interface Attribute {
  readonly key: string;
  readonly value: { readonly stringValue?: string; readonly doubleValue?: number };
}

/** A span as it is exported. */
export interface Span {
  readonly name: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly kind: number;
  readonly attributes?: readonly Attribute[];
}

/** An instrument as it is exported. */
export interface Metric {
  readonly name: string;
  readonly unit?: string;
  readonly histogram?: {
    readonly dataPoints: readonly {
      readonly explicitBounds: readonly number[];
      readonly attributes: readonly Attribute[];
    }[];
  };
  readonly gauge?: { readonly dataPoints: readonly { readonly asDouble?: number; readonly asInt?: string | number }[] };
  readonly sum?: { readonly dataPoints: readonly { readonly asDouble?: number; readonly asInt?: string | number }[] };
}

interface Export {
  readonly resourceSpans?: readonly { readonly scopeSpans: readonly { readonly spans: readonly Span[] }[] }[];
  readonly resourceMetrics?: readonly { readonly scopeMetrics: readonly { readonly metrics: readonly Metric[] }[] }[];
}

/** See the top of this file; for `await using` */
export class OtlpCollector implements AsyncDisposable {
  readonly spans: Span[] = [];
  readonly metrics: Metric[] = [];
  readonly #server: Deno.HttpServer<Deno.NetAddr>;

  constructor() {
    this.#server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, async (request) => {
      this.#take(await request.json());
      return Response.json({});
    });
  }

  /** Of a process that is to export here, soon after each thing that happens. */
  get env(): Readonly<Record<string, string>> {
    return {
      OTEL_DENO: "true",
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
      OTEL_METRIC_EXPORT_INTERVAL: "100",
      OTEL_BSP_SCHEDULE_DELAY: "100",
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${this.#server.addr.port}`,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }

  #take({ resourceSpans = [], resourceMetrics = [] }: Export): void {
    this.spans.push(...resourceSpans.flatMap((one) => one.scopeSpans).flatMap((scope) => scope.spans));
    this.metrics.push(...resourceMetrics.flatMap((one) => one.scopeMetrics).flatMap((scope) => scope.metrics));
  }
}

/** The value of an attribute that is text or a fraction. */
export function attribute({ attributes = [] }: { readonly attributes?: readonly Attribute[] }, key: string): unknown {
  const value = attributes.find((one) => one.key === key)?.value;
  return value?.stringValue ?? value?.doubleValue;
}
