/**
 * The HTTP application: which path leads where, and one shape for every error.
 * Knows routes; knows nothing of tokens, sockets or metrics systems.
 */

import { OpenAPIHono } from "@hono/zod-openapi";
import type { Context } from "hono";

import { CHAT_FORMAT } from "./chat.ts";
import { COMPLETION_FORMAT } from "./completions.ts";
import { contextOf } from "../access/request_context.ts";
import { describeError, errorCode, RequestError } from "../errors.ts";
import { errorBodyAt } from "../error_form.ts";
import { readJob, servedModel, serveGeneration, type ServingDeps } from "./generation_route.ts";
import { healthAnswer, readyAnswer, statesOf } from "./health.ts";
import { BodyReader, DEFAULT_LIMITS, type Limits } from "./limits.ts";
import { MESSAGES_FORMAT } from "./messages.ts";
import { nearestPath } from "./nearest_path.ts";
import { RESPONSES_FORMAT } from "./responses.ts";
import { listModels, retrieveModel } from "./models.ts";
import { describeApi } from "./openapi.ts";
import { PAGE_PATHS, pageAnswer } from "./page_route.ts";
import { selectionAnswer } from "./selection_route.ts";
import { tideAnswer } from "./tide_route.ts";
import { detokenizeResponse, tokenizeResponse } from "../text/tokenize_answer.ts";
import type { SelectionReader } from "../scheduling/selection_view.ts";

/** What the application needs of the rest of the service. */
export interface AppDeps extends Omit<ServingDeps, "bodies" | "limits"> {
  /** Where sequences look. */
  readonly selections: SelectionReader;
  /** @default DEFAULT_LIMITS */
  readonly limits?: Partial<Limits>;
  /** Adds routes of others, such as `/metrics`. */
  readonly mount?: (app: OpenAPIHono) => void;
}

type Method = "get" | "post";

/** Builds the application; it starts nothing and owns nothing. */
export function createApp({ mount, selections, ...given }: AppDeps): OpenAPIHono {
  const limits = { ...DEFAULT_LIMITS, ...given.limits };
  const deps: ServingDeps = { ...given, limits, bodies: new BodyReader(limits) };
  const app = new OpenAPIHono();

  app.onError((error, c) => errorResponse(error, c, deps));
  app.notFound((c) => {
    const nearest = nearestPath(c.req.path, app.routes.map(({ path }) => path));
    const advice = nearest === undefined ? "; /openapi.json lists what is served" : `; did you mean ${nearest}?`;
    return errorResponse(new RequestError("not_found", `Cannot find ${shortPath(c)}${advice}`), c, deps);
  });

  addRoutes(app, deps, selections);
  mount?.(app);
  return app;
}

/** Every path of the service itself. */
function addRoutes(app: OpenAPIHono, deps: ServingDeps, selections: AppDeps["selections"]): void {
  const route = (method: Method, path: string, handler: (c: Context) => Response | Promise<Response>) => {
    app.on(method.toUpperCase(), path, handler);
    // Hono answers HEAD from GET by itself.
    app.all(path, (c) => wrongMethod(c, method, deps));
  };
  const model = () => ({ deps, model: servedModel(deps) });
  route("post", "/v1/chat/completions", (c) => serveGeneration({ request: c.req.raw, format: CHAT_FORMAT }, deps));
  route("post", "/v1/completions", (c) => serveGeneration({ request: c.req.raw, format: COMPLETION_FORMAT }, deps));
  route("post", "/v1/responses", (c) => serveGeneration({ request: c.req.raw, format: RESPONSES_FORMAT }, deps));
  route("post", "/v1/messages", (c) => serveGeneration({ request: c.req.raw, format: MESSAGES_FORMAT }, deps));
  route(
    "post",
    "/v1/messages/count_tokens",
    async (c) => Response.json(await readJob("countTokens", c.req.raw, model())),
  );
  const created = Math.floor(Date.now() / 1000);
  const listing = () => ({ model: deps.model(), states: statesOf(deps.state()), created });
  route("get", "/v1/models", () => listModels(listing()));
  route("get", "/v1/models/:id{.+}", (c) => retrieveModel(c.req.param("id") ?? "", listing()));
  route(
    "get",
    "/v1/sequences/:id/selection",
    (c) => selectionAnswer(c.req.param("id") ?? "", c.req.query("index"), selections),
  );
  route("get", "/v1/sequences/:id/tide", (c) => {
    const watched = { id: c.req.param("id") ?? "", index: c.req.query("index"), signal: c.req.raw.signal };
    return tideAnswer(watched, selections, deps.limits);
  });
  route(
    "post",
    "/tokenize",
    async (c) => tokenizeResponse(await readJob("tokenize", c.req.raw, model()), deps.tokenizer),
  );
  route("post", "/detokenize", async (c) => detokenizeResponse(await readJob("detokenize", c.req.raw, model())));
  for (const path of PAGE_PATHS) route("get", path, (c) => pageAnswer(path, c.req.raw));
  route("get", "/health", () => healthAnswer(deps.state()));
  route("get", "/ready", () => readyAnswer(deps.state()));
  route("get", "/openapi.json", () => Response.json(describeApi(app)));
}

function wrongMethod(c: Context, method: Method, deps: ServingDeps): Response {
  const allowed = method === "get" ? "GET, HEAD" : "POST";
  const error = new RequestError("method_not_allowed", `Cannot ${c.req.method} ${shortPath(c)}: only ${allowed}`);
  const response = errorResponse(error, c, deps);
  response.headers.set("allow", allowed);
  return response;
}

function errorResponse(error: unknown, c: Context, deps: ServingDeps): Response {
  const answer = describeError(error);
  const { status, headers, internal } = answer;
  if (internal) deps.onInternalError(error);
  contextOf(c.req.raw)?.fail(errorCode(error));
  return Response.json(errorBodyAt(c.req.path, answer), { status, headers: { ...headers } });
}

function shortPath(c: Context): string {
  return c.req.path.length <= 100 ? c.req.path : `${c.req.path.slice(0, 100)}…`;
}
