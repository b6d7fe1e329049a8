/** The Helm chart: what it renders to is valid for Kubernetes, and for the program that it starts. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { objectsOf, renderChart, type Values } from "../support/helm_chart.ts";
import { servedBy, workerFlags } from "./flags.ts";
import { PLAIN_MANIFESTS, plainManifests } from "./render.ts";

const SECRET = { workerSecret: "0123456789abcdef", apiKeys: "" };

/** Values that together take every branch of every template. */
const CASES: Readonly<Record<string, Values>> = {
  defaults: {},
  "two groups on AMD's GPUs": { groups: 2, gpu: { resource: "amd.com/gpu" }, model: { name: "m" } },
  "Intel's GPUs, telemetry, more flags": {
    gpu: { resource: "gpu.intel.com/xe", runtimeClassName: "special" },
    otlpEndpoint: "http://collector:4318",
    extraServeArgs: ["--max-batch=8"],
    extraWorkerArgs: ["--drain-ms=1000"],
  },
  "no GPU, a claim, autoscaling": {
    gpu: { resource: "" },
    model: { source: "claim", claim: "models", directory: "llama" },
    autoscaling: { enabled: true },
    serviceMonitor: { enabled: true, bearer: { name: "scrape" } },
  },
  "a pulled model, KEDA, places": {
    model: { source: "pull", pull: { image: "p", command: ["sh"], env: [{ name: "A", value: "b" }] } },
    keda: { enabled: true },
    networkPolicy: { clients: [{ namespaceSelector: {} }] },
    router: { nodeSelector: { a: "b" }, tolerations: [{ operator: "Exists" }], affinity: { nodeAffinity: {} } },
    worker: { nodeSelector: { a: "b" }, tolerations: [{ operator: "Exists" }], affinity: { nodeAffinity: {} } },
  },
  "an existing secret, nothing optional": {
    secret: { existing: "mine", ...SECRET },
    podDisruptionBudget: { enabled: false },
    networkPolicy: { enabled: false },
    imagePullSecrets: [{ name: "pull" }],
    service: { annotations: { "a/b": "c" } },
  },
};

/** The types that an object of each kind must have. */
const TYPES: Readonly<Record<string, string>> = {
  Service: "core.Service",
  Secret: "core.Secret",
  PodDisruptionBudget: "policy.PodDisruptionBudget",
  NetworkPolicy: "networking.NetworkPolicy",
  HorizontalPodAutoscaler: "autoscaling.HorizontalPodAutoscaler",
  LeaderWorkerSet: "LeaderWorkerSet",
  ScaledObject: "ScaledObject",
  ServiceMonitor: "ServiceMonitor",
};

/** Those of Kubernetes itself, and by hand what of the extensions is used. */
const DECLARATIONS = `
import type * as core from "kubernetes-types/core/v1.d.ts";
import type * as meta from "kubernetes-types/meta/v1.d.ts";
import type * as policy from "kubernetes-types/policy/v1.d.ts";
import type * as networking from "kubernetes-types/networking/v1.d.ts";
import type * as autoscaling from "kubernetes-types/autoscaling/v2.d.ts";
interface LeaderWorkerSet {
  apiVersion: "leaderworkerset.x-k8s.io/v1"; kind: "LeaderWorkerSet"; metadata: meta.ObjectMeta;
  spec: {
    replicas: number;
    startupPolicy: "LeaderCreated" | "LeaderReady";
    rolloutStrategy: { type: "RollingUpdate"; rollingUpdateConfiguration: { maxUnavailable: number; maxSurge: number } };
    leaderWorkerTemplate: {
      size: number;
      restartPolicy: "None" | "RecreateGroupOnPodRestart" | "RecreateGroupAfterStart";
      leaderTemplate: { metadata: meta.ObjectMeta; spec: core.PodSpec };
      workerTemplate: { metadata: meta.ObjectMeta; spec: core.PodSpec };
    };
  };
}
interface ScaledObject {
  apiVersion: "keda.sh/v1alpha1"; kind: "ScaledObject"; metadata: meta.ObjectMeta;
  spec: {
    scaleTargetRef: { apiVersion: string; kind: string; name: string };
    minReplicaCount: number; maxReplicaCount: number; cooldownPeriod: number;
    triggers: { type: "prometheus"; metadata: { serverAddress: string; query: string; threshold: string } }[];
  };
}
interface ServiceMonitor {
  apiVersion: "monitoring.coreos.com/v1"; kind: "ServiceMonitor"; metadata: meta.ObjectMeta;
  spec: {
    selector: meta.LabelSelector;
    endpoints: { port: string; path: string; interval: string; authorization?: { credentials: core.SecretKeySelector } }[];
  };
}
`;

interface Container {
  readonly name: string;
  readonly args: readonly string[];
  readonly env?: readonly { readonly name: string; readonly value?: string }[];
  readonly volumeMounts: readonly { readonly mountPath: string }[];
}

interface PodTemplate {
  readonly metadata: { readonly labels: Readonly<Record<string, string>> };
  readonly spec: { readonly containers: readonly Container[]; readonly terminationGracePeriodSeconds: number };
}

// deno-lint-ignore no-explicit-any -- a tree that the type check above has looked at
type Tree = any;

const rendered = (values: Values) => renderChart({ secret: SECRET, ...values });

function templatesOf(objects: readonly Tree[]): readonly [router: PodTemplate, worker: PodTemplate] {
  const { leaderTemplate, workerTemplate } = objects.find(({ kind }) => kind === "LeaderWorkerSet")?.spec
    .leaderWorkerTemplate;
  return [leaderTemplate, workerTemplate];
}

/** With the environment as Kubernetes would make it. */
function commandOf({ spec: { containers: [container] } }: PodTemplate): {
  readonly name: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
} {
  assert.ok(container !== undefined);
  const [name = "", ...args] = container.args;
  const env = (container.env ?? []).map(({ name, value = "0" }) => [name, value.replaceAll("$(GROUP)", "0")] as const);
  return { name, args, env: Object.fromEntries(env) };
}

Deno.test("every object has the fields that Kubernetes asks for, and no others", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const lines: string[] = [];
    for (const [name, values] of Object.entries(CASES)) {
      for (const object of objectsOf(await rendered(values))) {
        const type = TYPES[object.kind] ?? assert.fail(`${object.kind} has no type here`);
        lines.push(
          `// ${name}: ${object.kind} ${object.metadata.name}`,
          `export const o${lines.length}: ${type} = ${JSON.stringify(object)};`,
        );
      }
    }
    const file = `${directory}/objects.ts`;
    await Deno.writeTextFile(file, DECLARATIONS + lines.join("\n"));
    assert.equal(await complaintsOf(file), "");
    await Deno.writeTextFile(file, `${DECLARATIONS}export const o: core.Service = { spec: { port: 1 } };`);
    assert.match(await complaintsOf(file), /'port' does not exist in type/, "a field too many is seen");
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

async function complaintsOf(file: string): Promise<string> {
  const config = fileURLToPath(new URL("../../deno.json", import.meta.url));
  const args = ["check", "--quiet", "--config", config, file];
  const { success, stderr } = await new Deno.Command(Deno.execPath(), { args, env: { NO_COLOR: "1" } }).output();
  return success ? "" : new TextDecoder().decode(stderr);
}

for (const [name, values] of Object.entries(CASES)) {
  Deno.test(`flags, ports, files and selectors fit together: ${name}`, async () => {
    const objects: readonly Tree[] = objectsOf(await rendered(values));
    const [router, worker] = templatesOf(objects);
    const serve = commandOf(router);
    assert.equal(serve.name, "serve");
    const { workers, port, drainMs, access } = servedBy(serve.args, serve.env);
    assert.ok(workers.kind === "join" && workers.source.kind === "dns");
    const listening = commandOf(worker);
    assert.equal(listening.name, "worker");
    const { listen, secretFile } = workerFlags(listening.args, listening.env);
    assert.equal(listen, `0.0.0.0:${workers.source.port}`);
    assert.equal(secretFile, workers.secretFile);
    assert.ok(router.spec.terminationGracePeriodSeconds > drainMs / 1000, "answers may finish");
    assert.ok(access.apiKeyFile === undefined || name.startsWith("an existing secret"));
    // The name that the router asks for is a headless service whose selector finds the workers of its group.
    const [service = ""] = workers.source.hostname.split(".");
    const headless = objects.find(({ kind, metadata }) => kind === "Service" && metadata.name === service);
    const { "leaderworkerset.sigs.k8s.io/group-index": group, ...selector } = headless.spec.selector;
    assert.equal(group, "0");
    assert.deepEqual({ ...worker.metadata.labels, ...selector }, worker.metadata.labels);
    const front = objects.find(({ kind, spec }) => kind === "Service" && spec.clusterIP === undefined);
    assert.deepEqual({ ...router.metadata.labels, ...front.spec.selector }, router.metadata.labels);
    assert.equal(port, 8000);
  });
}

Deno.test("the chart says which value is missing, and refuses one that it does not know", async () => {
  await assert.rejects(renderChart(), /secret\.workerSecret .* or secret\.existing is needed/);
  await assert.rejects(rendered({ model: { source: "claim" } }), /model\.claim is needed/);
  await assert.rejects(rendered({ gpu: { resourse: "x" } }), /values\.yaml does not know gpu\.resourse/);
});

Deno.test("the plain manifests are the chart with its defaults", async () => {
  assert.equal(await Deno.readTextFile(PLAIN_MANIFESTS), await plainManifests(), "run tests/deploy/render.ts");
});
