/**
 * Lint plugin: kernels ← engine ← workers ← router ← mod.ts. A room imports only rooms below it; tests import any.
 * Third-party packages enter at the files named in `DOORS` only.
 */

import { pathInProject } from "./path_in_project.ts";

const ROOMS = ["kernels", "engine", "workers", "router"] as const;

/** Package → the files (or folders, ending in /) that may import it outside tests. */
const DOORS: Record<string, readonly string[]> = {
  "@hono/node-server": ["router/server/http_server.ts"],
  "@msgpack/msgpack": ["workers/codec.ts"],
  "@nats-io/kv": ["router/group/membership/nats_bucket.ts"],
  "@nats-io/transport-node": ["router/group/membership/nats_bucket.ts"],
  "@opentelemetry/api": ["router/telemetry/telemetry.ts"],
  "@huggingface/tokenizers": ["engine/text/encoder.ts"],
  "@mlc-ai/web-xgrammar": ["router/grammar/xgrammar.ts"],
  "@huggingface/jinja": ["engine/text/chat_template.ts"],
  "dompurify": ["router/page/chat/markdown.tsx"],
  "idb-keyval": ["router/page/chat/conversations.ts"],
  "marked": ["router/page/chat/markdown.tsx"],
  "preact": ["router/page/"],
  "preact/hooks": ["router/page/"],
  "uplot": ["router/page/group/plot.tsx"],
};

/** Has neither Deno nor the types of the rooms around it, nor they those of the DOM. */
const PAGE = "router/page/";

function checkImport(context: Deno.lint.RuleContext, node: Deno.lint.Node, source: string): void {
  const file = pathInProject(context.filename);
  const room = ROOMS.findIndex((name) => file.startsWith(`${name}/`));
  if (room < 0) return;
  if (!source.startsWith(".")) {
    const doors = DOORS[source];
    if (doors !== undefined && !doors.some((door) => door.endsWith("/") ? file.startsWith(door) : file === door)) {
      context.report({ node, message: `${source} enters at ${doors.join(", ")} only, not at ${file}` });
    }
    return;
  }
  const target = new URL(source, `file:///${file}`).pathname.slice(1);
  if (file.startsWith(PAGE) !== target.startsWith(PAGE)) {
    context.report({ node, message: `${file} must not import ${target}: the page runs in a browser, on its own` });
  }
  const targetRoom = ROOMS.findIndex((name) => target.startsWith(`${name}/`));
  if (targetRoom > room || target === "mod.ts" || target.startsWith("tests/")) {
    context.report({ node, message: `${ROOMS[room]} must not import ${target}` });
  }
}

const plugin: Deno.lint.Plugin = {
  name: "tidepool",
  rules: {
    layers: {
      create(context) {
        return {
          ImportDeclaration(node) {
            checkImport(context, node, node.source.value);
          },
          ExportAllDeclaration(node) {
            checkImport(context, node, node.source.value);
          },
          ExportNamedDeclaration(node) {
            if (node.source) checkImport(context, node, node.source.value);
          },
          ImportExpression(node) {
            if (node.source.type === "Literal" && typeof node.source.value === "string") {
              checkImport(context, node, node.source.value);
            }
          },
        };
      },
    },
  },
};

export default plugin;
