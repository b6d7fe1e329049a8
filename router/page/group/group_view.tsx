/** The workers that serve the model, what they hold, and how they do. */

import type { VNode } from "preact";
import { useEffect, useState } from "preact/hooks";
import { percent, whole } from "../chat/plain_words.ts";
import type { PageState } from "../frame/page_state.ts";
import type { Health, HealthOfGroup } from "../service/service.ts";
import { GroupHistory, type Moments, SERIES } from "./group_history.ts";
import { type Samples, total } from "./metric_samples.ts";
import { Plot } from "./plot.tsx";
import { useObserved } from "../frame/use_observed.ts";

/** The panel. */
export function GroupView({ state }: { readonly state: PageState }): VNode {
  const [history] = useState(() => new GroupHistory(state.service));
  const moments = useObserved(history.moments);
  const service = useObserved(state.watch.state);
  useEffect(() => {
    history.start();
    return () => history.stop();
  }, [history]);
  const health = service.kind === "ready" || service.kind === "loading" ? service.health : undefined;
  return (
    <section class="panel group" aria-labelledby="group-title" tabIndex={0}>
      <header>
        <h2 id="group-title">{(health?.groups.length ?? 1) === 1 ? "The group" : "The groups"}</h2>
        {health?.epoch !== undefined && <span class="epoch">Epoch {health.epoch}</span>}
      </header>
      {health === undefined
        ? <p class="hint">The service does not answer; what is known of it shows here when it is back.</p>
        : (
          <>
            <Workers health={health} samples={moments.newest} />
            <Pages samples={moments.newest} />
            <Counts samples={moments.newest} />
            <Plots moments={moments} />
          </>
        )}
    </section>
  );
}

function Workers({ health: { groups, capacity_tokens: capacity = 0 }, samples }: {
  readonly health: Health;
  readonly samples: Samples;
}): VNode {
  return (
    <table class="workers">
      <thead>
        <tr>
          <th scope="col">Worker</th>
          <th scope="col">GPU</th>
          <th scope="col">Slice</th>
          <th scope="col">Share</th>
        </tr>
      </thead>
      <tbody>
        {groups.map((group) => (
          <WorkersOfGroup
            key={group.group}
            group={group}
            isAlone={groups.length === 1}
            capacity={capacity}
            samples={samples}
          />
        ))}
      </tbody>
    </table>
  );
}

/** A row for each worker of a group that is ready, else one that says how the group is. */
function WorkersOfGroup({ group: { group, state, reason, workers = [] }, isAlone, capacity, samples }: {
  readonly group: HealthOfGroup;
  readonly isAlone: boolean;
  /** Of all groups that are ready. */
  readonly capacity: number;
  readonly samples: Samples;
}): VNode {
  const isAway = (worker: number) =>
    samples.size > 0 &&
    total(samples, "tidepool_worker_up", { group: String(group), worker: String(worker) }) === 0;
  return (
    <>
      {state !== "ready" && !isAlone && (
        <tr>
          <th scope="row">{group}</th>
          <td colSpan={3}>{state}{reason !== undefined && `: ${reason}`}</td>
        </tr>
      )}
      {workers.map(({ adapter, capacity_tokens: tokens }, i) => (
        <tr key={i}>
          <th scope="row">
            <span class={`swatch worker-${i % 4}`} aria-hidden="true" />
            {isAlone ? i : `${group}.${i}`} {isAway(i) && "(away)"}
          </th>
          <td>{adapter ?? "unknown"}</td>
          <td>{whole(tokens)} tokens</td>
          <td>{percent(tokens / Math.max(1, capacity))}</td>
        </tr>
      ))}
    </>
  );
}

const STATES = [["running", "Running"], ["prefix", "Prefix cache"], ["free", "Free"]] as const;

/** What the pages of the KV cache are used for. */
function Pages({ samples }: { readonly samples: Samples }): VNode {
  const counts = STATES.map(([state, label]) => ({
    state,
    label,
    pages: total(samples, "tidepool_kv_pages", { state }),
  }));
  const all = Math.max(1, counts.reduce((sum, { pages }) => sum + pages, 0));
  return (
    <div class="pages">
      <h3>KV cache, {whole(all)} pages</h3>
      <div class="stack" aria-hidden="true">
        {counts.map(({ state, pages }) => (
          <span
            key={state}
            class={state}
            style={{ width: `${pages / all * 100}%` }}
          />
        ))}
      </div>
      <ul class="legend">
        {counts.map(({ state, label, pages }) => (
          <li key={state} class={state}>{label} {whole(pages)} ({percent(pages / all)})</li>
        ))}
      </ul>
    </div>
  );
}

const COUNTS = [
  ["Answered", "tidepool_request_success_total"],
  ["Failed", "tidepool_request_failure_total"],
  ["Left early", "tidepool_client_disconnects_total"],
  ["Preempted", "tidepool_num_preemptions_total"],
  ["Rebuilt", "tidepool_replays_total"],
  ["Corrections", "tidepool_corrections_total"],
] as const;

/** Since the service was started. */
function Counts({ samples }: { readonly samples: Samples }): VNode {
  const checked = total(samples, "tidepool_audit_tokens_checked_total");
  const agreed = total(samples, "tidepool_audit_tokens_agreed_total");
  const [asked, found] = [
    total(samples, "tidepool_prefix_cache_queries_total"),
    total(samples, "tidepool_prefix_cache_hits_total"),
  ];
  return (
    <dl class="counts">
      {COUNTS.map(([label, name]) => <Count key={name} label={label} value={whole(total(samples, name))} />)}
      <Count label="Read from cache" value={asked === 0 ? "–" : percent(found / asked)} />
      <Count label="As full attention" value={checked === 0 ? "–" : percent(agreed / checked)} />
    </dl>
  );
}

function Count({ label, value }: { readonly label: string; readonly value: string }): VNode {
  return (
    <div>
      <dt>{label}</dt>
      <dd>{value}</dd>
    </div>
  );
}

function Plots({ moments: { times, values } }: { readonly moments: Moments }): VNode {
  return (
    <div class="plots">
      {SERIES.map((series, i) => <Plot key={series.title} series={series} times={times} values={values[i] ?? []} />)}
    </div>
  );
}
