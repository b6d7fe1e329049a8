/** The OpenAPI document, from the same schemas that check the requests. Knows routes and their shapes in outline. */

import { type OpenAPIHono, z } from "@hono/zod-openapi";

import { ERROR_TABLE } from "../errors.ts";
import { countTokensSchema, messagesSchema } from "../text/messages_request.ts";
import { responsesSchema } from "../text/responses_request.ts";
import { chatSchema, completionSchema, detokenizeSchema, tokenizeSchema } from "../body/schemas.ts";

const errorBody = z.object({
  error: z.object({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string().nullable(),
  }),
}).openapi("Error");

interface Route {
  readonly method: "get" | "post";
  readonly path: string;
  readonly summary: string;
  readonly body?: z.ZodType;
  readonly streams?: true;
  /** Answers with nothing but a stream of events. */
  readonly events?: true;
  readonly parameter?: string;
  /** Optional, after the question mark. */
  readonly query?: string;
  /** Refusals of a route without a body, beside 500. */
  readonly refusals?: readonly number[];
}

const ROUTES: readonly Route[] = [
  { method: "post", path: "/v1/chat/completions", summary: "Continue a conversation", body: chatSchema, streams: true },
  { method: "post", path: "/v1/completions", summary: "Continue a text", body: completionSchema, streams: true },
  {
    method: "post",
    path: "/v1/responses",
    summary: "Continue a conversation, stateless",
    body: responsesSchema,
    streams: true,
  },
  {
    method: "post",
    path: "/v1/messages",
    summary: "Continue a conversation, as Anthropic has it",
    body: messagesSchema,
    streams: true,
  },
  { method: "post", path: "/v1/messages/count_tokens", summary: "Tokens of a conversation", body: countTokensSchema },
  { method: "get", path: "/v1/models", summary: "The models served" },
  { method: "get", path: "/v1/models/{id}", summary: "One model", parameter: "id" },
  {
    method: "get",
    path: "/v1/sequences/{id}/selection",
    summary: "The positions chosen last for a running or recently ended response",
    parameter: "id",
    query: "index",
    refusals: [400, 404, 409],
  },
  {
    method: "get",
    path: "/v1/sequences/{id}/tide",
    summary: "What a running response reads, row by row, as events",
    parameter: "id",
    query: "index",
    events: true,
    refusals: [400, 404, 429],
  },
  { method: "post", path: "/tokenize", summary: "Text or messages to token ids", body: tokenizeSchema },
  { method: "post", path: "/detokenize", summary: "Token ids to text", body: detokenizeSchema },
  { method: "get", path: "/health", summary: "Whether the process lives" },
  { method: "get", path: "/ready", summary: "Whether requests are taken now" },
];

const STATUSES = [...new Set(Object.values(ERROR_TABLE).map((row) => row.status))].sort((a, b) => a - b);

/** Nothing in a body leads to these. */
const NOT_OF_BODIES: ReadonlySet<number> = new Set([405, 409]);

/** The document, with the routes that others mounted on the same application. */
export function describeApi(app: OpenAPIHono): ReturnType<OpenAPIHono["getOpenAPI31Document"]> {
  const known = new Set(
    app.openAPIRegistry.definitions.flatMap((definition) =>
      definition.type === "route" ? [`${definition.route.method} ${definition.route.path}`] : []
    ),
  );
  for (const route of ROUTES) {
    if (!known.has(`${route.method} ${route.path}`)) register(app, route);
  }
  return app.getOpenAPI31Document({
    openapi: "3.1.0",
    info: { title: "Tidepool", version: "1", description: "Long-context language models, OpenAI-compatible" },
  });
}

function register(app: OpenAPIHono, { method, path, summary, body, streams, events, ...route }: Route): void {
  const { parameter, query, refusals = [] } = route;
  const json = { "application/json": { schema: z.looseObject({}) } };
  const eventStream = streams || events ? { "text/event-stream": { schema: z.string() } } : {};
  const failed = (status: number) => ({
    description: `Refused or failed: ${codesOf(status).join(", ")}`,
    content: { "application/json": { schema: errorBody } },
  });
  app.openAPIRegistry.registerPath({
    method,
    path,
    summary,
    request: {
      ...(body === undefined ? {} : { body: { required: true, content: { "application/json": { schema: body } } } }),
      ...(parameter === undefined ? {} : { params: z.object({ [parameter]: z.string() }) }),
      ...(query === undefined ? {} : { query: z.object({ [query]: z.string().optional() }) }),
    },
    responses: {
      200: { description: "Done", content: { ...(events ? {} : json), ...eventStream } },
      ...Object.fromEntries(
        (body === undefined ? [...refusals, 500] : STATUSES.filter((status) => !NOT_OF_BODIES.has(status))).map((
          s,
        ) => [s, failed(s)]),
      ),
    },
  });
}

function codesOf(status: number): string[] {
  return Object.entries(ERROR_TABLE).filter(([, row]) => row.status === status).map(([code]) => code);
}
