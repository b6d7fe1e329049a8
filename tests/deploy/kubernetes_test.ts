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

/** The module of each kind: its type, which knows every field, and its schema, which knows what a field may hold. */
const MODELS: Readonly<Record<string, string>> = {
  Service: "kubernetes-models/v1/Service",
  Secret: "kubernetes-models/v1/Secret",
  PodDisruptionBudget: "kubernetes-models/policy/v1/PodDisruptionBudget",
  NetworkPolicy: "kubernetes-models/networking.k8s.io/v1/NetworkPolicy",
  HorizontalPodAutoscaler: "kubernetes-models/autoscaling/v2/HorizontalPodAutoscaler",
  PodTemplate: "kubernetes-models/v1/PodTemplate",
  ScaledObject: "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject",
  ServiceMonitor: "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor",
};

/** No package has it: by hand what of it is used; its pods are checked as `PodTemplate`. */
const LEADER_WORKER_SET = `
import type { IObjectMeta } from "@kubernetes-models/apimachinery/apis/meta/v1/ObjectMeta";
interface ILeaderWorkerSet {
  apiVersion: "leaderworkerset.x-k8s.io/v1"; kind: "LeaderWorkerSet"; metadata: IObjectMeta;
  spec: {
    replicas: number;
    startupPolicy: "LeaderCreated" | "LeaderReady";
    rolloutStrategy: { type: "RollingUpdate"; rollingUpdateConfiguration: { maxUnavailable: number; maxSurge: number } };
    leaderWorkerTemplate: {
      size: number;
      restartPolicy: "None" | "RecreateGroupOnPodRestart" | "RecreateGroupAfterStart";
      leaderTemplate: IPodTemplate["template"];
      workerTemplate: IPodTemplate["template"];
    };
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

/** An object, and the pods that it makes where no schema of its own would look at them. */
function withTemplates(object: Tree): readonly Tree[] {
  if (object.kind !== "LeaderWorkerSet") return [object];
  const pods = templatesOf([object]).map((template) => ({
    apiVersion: "v1",
    kind: "PodTemplate",
    metadata: object.metadata,
    template,
  }));
  return [object, ...pods];
}

/** What shows that the check sees a field too many, and a value that cannot be. */
const WRONG = `
// @ts-expect-error -- a service has no port of its own
export const tooMuch: IService = { apiVersion: "v1", kind: "Service", spec: { port: 1 } };
try {
  new Service({ spec: { ports: [{ port: 80.5 }] } }).validate();
} catch (error) {
  if (String(error).includes("must be integer")) Deno.exit(0);
}
console.error("The schema has taken half a port");
Deno.exit(1);
`;

/** A program that type-checks if the objects have no field too many, and ends with 0 if the schemas take them. */
function checkingProgram(objects: readonly { readonly from: string; readonly object: Tree }[]): string {
  const imports = Object.entries(MODELS).map(([kind, from]) => `import { type I${kind}, ${kind} } from "${from}";`);
  const lines = objects.flatMap(({ from, object }, i) => [
    `// ${from}: ${object.kind} ${object.metadata.name}`,
    `const o${i}: I${object.kind} = ${JSON.stringify(object)};`,
    MODELS[object.kind] === undefined ? `void o${i};` : `new ${object.kind}(o${i}).validate();`,
  ]);
  return [...imports, LEADER_WORKER_SET, ...lines, WRONG].join("\n");
}

Deno.test("Kubernetes' types and schemas take every object", async () => {
  const objects = [];
  for (const [from, values] of Object.entries(CASES)) {
    for (const object of objectsOf(await rendered(values)).flatMap(withTemplates)) {
      assert.ok(MODELS[object.kind] ?? object.kind === "LeaderWorkerSet", `${object.kind} has no type here`);
      objects.push({ from, object });
    }
  }
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    await Deno.writeTextFile(file, checkingProgram(objects));
    assert.equal(await complaintsOf(file), "");
  } finally {
    await Deno.remove(file);
  }
});

async function complaintsOf(file: string): Promise<string> {
  const config = fileURLToPath(new URL("../../deno.json", import.meta.url));
  const args = ["run", "--quiet", "--check", "--config", config, file];
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
