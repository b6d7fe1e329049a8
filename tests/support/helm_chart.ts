/** Renders the Helm chart as `helm template` does, for tests and for the plain manifests. */

import { parse, parseAllDocuments } from "yaml";
import { Templates, type Value } from "./go_template.ts";

const CHART = new URL("../../deploy/helm/tidepool/", import.meta.url);

/** An object of Kubernetes. */
export interface KubernetesObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly labels?: Readonly<Record<string, string>> };
}

/** Values given beside those of `values.yaml`, nested as they are there. */
export type Values = { readonly [name: string]: Value };

/** The text of all templates, in the order of their names. @throws {Error} as the chart says when a value is missing */
export async function renderChart(
  values: Values = {},
  release = { name: "tidepool", namespace: "default" },
): Promise<string> {
  const chart = parse(await Deno.readTextFile(new URL("Chart.yaml", CHART)));
  const defaults = parse(await Deno.readTextFile(new URL("values.yaml", CHART)));
  const root = {
    Values: merged(defaults, values),
    Chart: { Name: chart.name, Version: chart.version, AppVersion: chart.appVersion },
    Release: { Name: release.name, Namespace: release.namespace, Service: "Helm" },
  };
  const names: string[] = [];
  for await (const { name } of Deno.readDir(new URL("templates", CHART))) names.push(name);
  const templates = new Templates();
  const files = [];
  for (const name of names.sort()) {
    const text = await Deno.readTextFile(new URL(`templates/${name}`, CHART));
    files.push({ name, render: templates.read(text) });
  }
  const rendered = files.filter(({ name }) => !name.startsWith("_")).map(({ name, render }) => ({
    name,
    text: render(root),
  }));
  return rendered.filter(({ text }) => text.trim() !== "")
    .map(({ name, text }) => `---\n# Source: tidepool/templates/${name}\n${tidy(text)}\n`).join("");
}

/** Without blank lines and ends of blanks, which templates leave behind. */
function tidy(text: string): string {
  return text.trim().replaceAll(/ +$/gm, "").replaceAll(/\n{2,}/g, "\n");
}

/** The objects of a text of several documents. @throws {Error} for a text that is no YAML */
export function objectsOf(text: string): readonly KubernetesObject[] {
  return parseAllDocuments(text).map((document) => {
    const [error] = document.errors;
    if (error !== undefined) throw error;
    return document.toJS();
  }).filter((object) => object !== null);
}

/** Refuses what `values.yaml` does not know, as a typing error would be. */
function merged(defaults: Value, given: Value, path = ""): Value {
  if (given === undefined) return defaults;
  const isMap = (value: Value): value is Values => typeof value === "object" && value !== null && !Array.isArray(value);
  if (!isMap(defaults) || !isMap(given) || Object.keys(defaults).length === 0) return given;
  const unknown = Object.keys(given).find((name) => !Object.hasOwn(defaults, name));
  if (unknown !== undefined) throw new Error(`Cannot render chart: values.yaml does not know ${path}${unknown}`);
  return Object.fromEntries(
    Object.entries(defaults).map(([name, value]) => [name, merged(value, given[name], `${path}${name}.`)]),
  );
}
