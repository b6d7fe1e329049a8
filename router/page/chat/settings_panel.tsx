/** How the answers of the open conversation are made. */

import type { VNode } from "preact";
import type { PageState } from "../frame/page_state.ts";
import type { Settings } from "./settings.ts";
import { useObserved } from "../frame/use_observed.ts";

type NumberName = {
  [Name in keyof Settings]: number extends Settings[Name] ? (undefined extends Settings[Name] ? Name : never) : never;
}[keyof Settings];

interface NumberField {
  readonly name: NumberName;
  readonly label: string;
  readonly min: number;
  readonly max?: number;
  readonly step: number;
}

const SAMPLING: readonly NumberField[] = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.1 },
  { name: "topP", label: "Top p", min: 0.01, max: 1, step: 0.01 },
  { name: "topK", label: "Top k", min: 0, step: 1 },
  { name: "minP", label: "Min p", min: 0, max: 1, step: 0.01 },
  { name: "repetitionPenalty", label: "Repetition penalty", min: 0.1, max: 10, step: 0.05 },
  { name: "seed", label: "Seed", min: 0, step: 1 },
  { name: "maxTokens", label: "Longest answer", min: 1, step: 1 },
];

const COVERAGE: NumberField = { name: "coverage", label: "Attention covered", min: 0.01, max: 1, step: 0.01 };

const CHOICES = {
  attention: [["auto", "Sparse when long"], ["dense", "Full"], ["sparse", "Sparse"]],
  heads: [["", "Default"], ["kv_head", "One set per KV head"], ["query_head", "One per query head"], [
    "all_heads",
    "One for all",
  ]],
  correction: [
    ["", "Default"],
    ["off", "Off"],
    ["refresh", "Refresh: recompute sparse rows"],
    ["audit", "Audit: also compare with full attention"],
    ["lossless", "Lossless: only tokens of full attention"],
  ],
} as const;

/** Fields; what is left empty is decided by the service. */
export function SettingsPanel({ state: { conversations } }: { readonly state: PageState }): VNode {
  const { settings } = useObserved(conversations.open);
  const change = (changed: Partial<Settings>) => {
    const { value } = conversations.open;
    conversations.open.set({ ...value, settings: { ...value.settings, ...changed } });
  };
  return (
    <div class="settings">
      <label class="field wide">
        <span>System prompt</span>
        <textarea rows={2} value={settings.system} onInput={(event) => change({ system: event.currentTarget.value })} />
      </label>
      <fieldset>
        <legend>Sampling</legend>
        {SAMPLING.map((field) => <NumberInput key={field.name} field={field} settings={settings} change={change} />)}
      </fieldset>
      <fieldset>
        <legend>Attention</legend>
        <Choice name="attention" label="Mode" settings={settings} change={change} />
        <Budget settings={settings} change={change} />
        <Choice name="heads" label="Positions" settings={settings} change={change} />
        <Choice name="correction" label="Correction" settings={settings} change={change} />
      </fieldset>
    </div>
  );
}

interface Changing {
  readonly settings: Settings;
  readonly change: (changed: Partial<Settings>) => void;
}

function numberOf(text: string): number | undefined {
  return text.trim() === "" || !Number.isFinite(Number(text)) ? undefined : Number(text);
}

function NumberInput({ field: { name, label, ...bounds }, settings, change }: Changing & {
  readonly field: NumberField;
}): VNode {
  return (
    <label class="field">
      <span>{label}</span>
      <input
        type="number"
        {...bounds}
        placeholder="default"
        value={settings[name] ?? ""}
        onInput={(event) => change({ [name]: numberOf(event.currentTarget.value) })}
      />
    </label>
  );
}

function Choice({ name, label, settings, change }: Changing & {
  readonly name: keyof typeof CHOICES;
  readonly label: string;
}): VNode {
  return (
    <label class="field">
      <span>{label}</span>
      <select
        value={settings[name] ?? ""}
        onChange={(event) => change({ [name]: event.currentTarget.value || undefined })}
      >
        {CHOICES[name].map(([value, text]) => <option key={value} value={value}>{text}</option>)}
      </select>
    </label>
  );
}

/** A number of positions, or as few as cover a share of the attention. */
function Budget({ settings, change }: Changing): VNode {
  const { budget } = settings;
  const isAuto = budget === "auto";
  return (
    <>
      <label class="field">
        <span>Budget, positions</span>
        <input
          type="number"
          min={16}
          step={1}
          placeholder={isAuto ? "adaptive" : "default"}
          disabled={isAuto}
          value={isAuto ? "" : budget ?? ""}
          onInput={(event) => change({ budget: numberOf(event.currentTarget.value) })}
        />
      </label>
      <label class="check">
        <input
          type="checkbox"
          checked={isAuto}
          onChange={(event) => change({ budget: event.currentTarget.checked ? "auto" : undefined })}
        />
        <span>Adaptive budget</span>
      </label>
      {isAuto && <NumberInput field={COVERAGE} settings={settings} change={change} />}
    </>
  );
}
