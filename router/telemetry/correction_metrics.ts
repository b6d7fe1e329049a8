/** What corrections do and audits find, over all requests. Knows reports of single correction spans; never sees a token. */

import type { CorrectionReport } from "../scheduling/correction.ts";
import type { Counter, MetricsRegistry } from "./metrics_registry.ts";

/** The instruments of corrections; each by the mode that asked for it. */
export class CorrectionMetrics {
  readonly #corrections: Counter;
  readonly #rows: Counter;
  readonly #dropped: Counter;
  readonly #checked: Counter;
  readonly #agreed: Counter;
  readonly #measured: Counter;
  readonly #divergence: Counter;

  constructor(registry: MetricsRegistry) {
    const counter = (name: string, help: string) => registry.counter(`tidepool_${name}_total`, help);
    this.#corrections = counter("corrections", "Times that sparse rows were computed again with full attention");
    this.#rows = counter("corrected_rows", "Rows that this computed, the newest included");
    this.#dropped = counter("dropped_drafts", "Sparse tokens thrown away because full attention disagreed");
    this.#checked = counter("audit_tokens_checked", "Sparse tokens compared with those of full attention");
    this.#agreed = counter("audit_tokens_agreed", "Those that were the same");
    this.#measured = counter("audit_tokens_measured", "Those whose divergence is known");
    this.#divergence = counter("audit_kl_nats", "KL(dense ‖ sparse) in nats, summed over the measured tokens");
  }

  /** A correction span has run. */
  record({ mode, isLast, rows, checked, agreed, divergence, measured, dropped }: CorrectionReport): void {
    const labels = { mode };
    this.#corrections.add(isLast ? 1 : 0, labels);
    this.#rows.add(rows, labels);
    this.#dropped.add(dropped, labels);
    this.#checked.add(checked, labels);
    this.#agreed.add(agreed, labels);
    this.#measured.add(measured, labels);
    this.#divergence.add(divergence, labels);
  }
}
