/** What the model reads while it answers: how much, where, when, and the text there. */

import type { VNode } from "preact";
import { useMemo, useState } from "preact/hooks";
import { percent, whole } from "../chat/plain_words.ts";
import type { PageState } from "../frame/page_state.ts";
import { DocumentView } from "./document_view.tsx";
import { mostRead, type Passage } from "./passages.ts";
import type { Recording } from "./recording.ts";
import { StripCanvas } from "./strip_canvas.tsx";
import type { TideSelection } from "./tide_selection.ts";
import { useRecording } from "./use_recording.ts";
import { useObserved } from "../frame/use_observed.ts";

const WEIGH_EVERY_MS = 1000;

/** The panel. */
export function TideView({ state: { tide } }: { readonly state: PageState }): VNode {
  const shown = useObserved(tide.shown);
  const isOn = useObserved(tide.isOn);
  const trouble = useObserved(tide.trouble);
  return (
    <section class="panel tide" aria-labelledby="tide-title" tabIndex={0}>
      <header>
        <h2 id="tide-title">The tide</h2>
        <label class="check switch">
          <input type="checkbox" checked={isOn} onChange={(event) => tide.turn(event.currentTarget.checked)} />
          <span>Watch</span>
        </label>
      </header>
      {trouble !== undefined && <p class="failed" role="alert">{trouble}</p>}
      {shown === undefined ? <Nothing isOn={isOn} /> : <RecordingView key={shown.answer} recording={shown} />}
    </section>
  );
}

function Nothing({ isOn }: { readonly isOn: boolean }): VNode {
  if (!isOn) return <p class="hint">Watching is off. Turn it on to see what the next answer reads.</p>;
  return (
    <div class="hint nothing">
      <p>
        Ask something. While the answer is written, this shows where in the text the model looks for each word of it.
      </p>
      <ul class="legend">
        <li class="heat">What its select layers choose, little to much</li>
        <li class="forced">What is always read: the beginning, and what is newest</li>
      </ul>
      <p>Everything else is left out by the sparse layers. With a short text all of it is read.</p>
    </div>
  );
}

function RecordingView({ recording }: { readonly recording: Recording }): VNode {
  const version = useRecording(recording);
  const [selection, select] = useState<TideSelection>({
    position: undefined,
    target: undefined,
    row: undefined,
    lane: undefined,
  });
  const change = (changed: Partial<TideSelection>) => select((now) => ({ ...now, ...changed }));
  // Weighing a long document takes some milliseconds; more often than this, no one could read it.
  const moment = recording.isOver ? version : Math.floor(performance.now() / WEIGH_EVERY_MS);
  const passages = useMemo(() => mostRead(recording, 3), [recording, moment]);
  const row = recording.rows[selection.row ?? recording.rows.length - 1];
  return (
    <div class="recording" data-rows={recording.rows.length} data-over={recording.isOver}>
      <Share recording={recording} />
      <StripCanvas
        recording={recording}
        version={version}
        passages={passages}
        selection={selection}
        onChange={change}
      />
      <RowSlider recording={recording} selection={selection} onChange={change} />
      <Passages
        recording={recording}
        passages={passages}
        onShow={(position) => change({ position, target: { position } })}
      />
      <DocumentView recording={recording} version={version} row={row} target={selection.target} />
    </div>
  );
}

/** How much of the context a sparse layer reads. */
function Share({ recording }: { readonly recording: Recording }): VNode {
  const { layout, context, lanes, rows } = recording;
  const newest = rows.findLast(({ attention }) => attention === "sparse");
  if (layout === undefined) return <p class="share">Waiting for the first row</p>;
  if (newest === undefined) {
    return (
      <p class="share">
        <strong>100 %</strong>
        <span>
          Every layer reads all {whole(context)} positions: the context is short, or full attention was asked for
        </span>
      </p>
    );
  }
  const read = newest.chosen.reduce((sum, positions) => sum + positions.length, 0) / newest.chosen.length;
  const sparse = layout.layers - new Set(lanes.map(({ layer }) => layer)).size - (layout.selectLayers[0] ?? 0);
  return (
    <p class="share">
      <strong>{percent(read / (newest.position + 1))}</strong>
      <span>
        {whole(read)} of {whole(newest.position + 1)} positions are read in each of {sparse} sparse layers;{" "}
        {layout.layers - sparse} layers look at everything, and {layout.selectLayers.length} of them choose
      </span>
    </p>
  );
}

interface Selecting {
  readonly recording: Recording;
  readonly selection: TideSelection;
  readonly onChange: (changed: Partial<TideSelection>) => void;
}

/** Goes back through the rows. */
function RowSlider({ recording, selection, onChange }: Selecting): VNode | null {
  const { rows } = recording;
  if (rows.length === 0) return null;
  const last = rows.length - 1;
  const at = Math.min(last, selection.row ?? last);
  const row = rows[at];
  const read = row === undefined ? "" : recording.piece(row.position).trim();
  const words = row?.attention === "correction" ? `correction of ${row.rows} rows` : `after “${read}”`;
  return (
    <label class="rows">
      <span class="label">
        Row {whole(recording.forgotten + at + 1)} of {whole(recording.forgotten + rows.length)}: {words}
      </span>
      <input
        type="range"
        min={0}
        max={last}
        value={at}
        onInput={(event) => {
          const chosen = Number(event.currentTarget.value);
          onChange({ row: chosen === last ? undefined : chosen });
        }}
      />
    </label>
  );
}

/** Where it looked that it need not have looked, in words; the strip has a flag at each place. */
function Passages({ recording, passages, onShow }: {
  readonly recording: Recording;
  readonly passages: readonly Passage[];
  readonly onShow: (position: number) => void;
}): VNode | null {
  if (passages.length === 0) return null;
  return (
    <div class="passages">
      <h3>What stands out</h3>
      <ol>
        {passages.map(({ from, to, share }, i) => (
          <li key={from}>
            <button type="button" onClick={() => onShow(from)}>
              <span class="flag" aria-hidden="true">{i + 1}</span>
              <span class="where">{whole(from)}</span>
              <span class="text">…{recording.text(from - 2, to + 6).trim()}…</span>
              <span class="much">{percent(share)}</span>
            </button>
          </li>
        ))}
      </ol>
    </div>
  );
}
