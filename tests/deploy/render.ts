/** Writes the plain manifests, which are the chart with its defaults: `deno run -A tests/deploy/render.ts`. */

import { renderChart } from "../support/helm_chart.ts";

/** What the chart asks for and cannot know. */
const VALUES = { secret: { workerSecret: "replace-me: openssl rand -hex 32" } } as const;

const HEAD =
  `# The Helm chart with its defaults; written by \`deno run -A tests/deploy/render.ts\`. Needs the LeaderWorkerSet controller.
# Before you apply it: another worker-secret, and the model and the GPUs that you have.
`;

/** Where they are. */
export const PLAIN_MANIFESTS = new URL("../../deploy/kubernetes/tidepool.yaml", import.meta.url);

/** Their text, as it should be. */
export async function plainManifests(): Promise<string> {
  return HEAD + await renderChart(VALUES);
}

if (import.meta.main) await Deno.writeTextFile(PLAIN_MANIFESTS, await plainManifests());
