/** The HTTP application on a socket, for clients that are used as they are. Knows how to script its answers. */

import { TestService, tokensOf } from "../support/test_service.ts";

/** A tool call as a Hermes model writes it. */
export function callText(name: string, args: unknown): string {
  return `<tool_call>\n{"name": "${name}", "arguments": ${JSON.stringify(args)}}\n</tool_call>`;
}

/** A served application, and what it is to say next. */
export interface Served {
  readonly service: TestService;
  /** With and without `/v1`. */
  readonly origin: string;
  /** Texts of the next answers, in turn; the last one again and again. */
  say(...texts: readonly string[]): void;
}

/** Serves on a port of the system's choosing for as long as the test runs. */
export async function serving(test: (served: Served) => Promise<void>): Promise<void> {
  using service = await TestService.open();
  let texts: readonly string[] = ["Hello"];
  const answer = () => {
    const [text = "", ...rest] = texts;
    if (rest.length > 0) texts = rest;
    service.generator.script = { tokens: [...tokensOf(service.tokenizer, text), 1] };
  };
  const handler = (request: Request) => {
    answer();
    return service.app.fetch(request);
  };
  await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, handler);
  const say = (...next: readonly string[]) => void (texts = next);
  await test({ service, origin: `http://127.0.0.1:${server.addr.port}`, say });
}
