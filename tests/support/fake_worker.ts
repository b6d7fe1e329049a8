/** A worker process around a fake engine, started by no launcher: it listens by itself, and heeds SIGTERM. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { joinedWorker } from "../../router/group/worker_source.ts";
import type { MemberPlan } from "../../router/group/membership/membership.ts";
import type { TlsTrust } from "../../workers/transport.ts";
import { FAKE_ENTRY } from "./group_stage.ts";

/** See the top of this file; for `await using` */
export class FakeWorker {
  readonly address: { readonly hostname: string; readonly port: number };
  readonly status: Promise<Deno.CommandStatus>;
  readonly #child: Deno.ChildProcess;
  #hasEnded = false;

  readonly #trust: TlsTrust | undefined;

  private constructor(child: Deno.ChildProcess, port: number, trust: TlsTrust | undefined) {
    this.#trust = trust;
    this.#child = child;
    this.address = { hostname: "127.0.0.1", port };
    this.status = child.status.finally(() => this.#hasEnded = true);
  }

  /** Waits until it listens. @param trust given: it speaks TLS with the certificate of the fixtures */
  static async start(trust?: TlsTrust): Promise<FakeWorker> {
    const tls = trust === undefined ? [] : ["--tls"];
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "-A", "--no-check", fileURLToPath(FAKE_ENTRY), "worker", "--silence-ms=60000", ...tls],
      stdout: "piped",
      stderr: "null",
    }).spawn();
    const reader = child.stdout.getReader();
    const { value } = await reader.read();
    await reader.cancel();
    const [, port] = /listens on (\d+)/.exec(new TextDecoder().decode(value)) ?? assert.fail("the worker is silent");
    return new FakeWorker(child, Number(port), trust);
  }

  /** As a member of a group that loads a fake model; see `MODELS`. */
  plan(random: string, refusal?: string): MemberPlan {
    const key = `127.0.0.1:${this.address.port}`;
    return {
      key,
      place: key,
      source: joinedWorker(this.address, undefined, this.#trust),
      load: { model: { random }, kvTokens: 4096 },
      ...(refusal === undefined ? {} : { refusal }),
    };
  }

  kill(signal: Deno.Signal): void {
    if (!this.#hasEnded) this.#child.kill(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kill("SIGKILL");
    await this.status;
  }
}
