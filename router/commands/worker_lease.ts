/** What `worker --announce` does beside the worker: it keeps an announcement on a NATS server while the worker lives. */

import { hostname } from "node:os";
import project from "../../deno.json" with { type: "json" };
import { PAGE_TOKENS } from "../../engine/span.ts";
import type { EngineInfo } from "../../engine/engine_info.ts";
import { PROTOCOL_VERSION } from "../../workers/protocol.ts";
import { UsageError } from "../errors.ts";
import { formatAddress, parseAddress } from "../host/address.ts";
import { type NatsPlace, parseNatsPlace } from "../host/join_source.ts";
import type { NatsAnnouncer } from "../group/membership/nats_announcer.ts";
import type { Terminal } from "../terminal.ts";

/** The flags that say what is announced, and where. */
export interface LeaseFlags {
  readonly announce: string | undefined;
  readonly advertise: string | undefined;
  readonly name: string | undefined;
}

/** Keys of a bucket. */
const NAME = /^[A-Za-z0-9_.=-]{1,128}$/;

/** Nothing at all without `--announce`. */
export class Lease {
  readonly #place: NatsPlace | undefined;
  readonly #flags: LeaseFlags;
  readonly #terminal: Terminal;
  #announcer: Promise<NatsAnnouncer> | undefined;

  /** @throws {UsageError} */
  constructor(flags: LeaseFlags, terminal: Terminal) {
    this.#place = flags.announce === undefined ? undefined : parseNatsPlace(flags.announce);
    if (this.#place === undefined && (flags.advertise ?? flags.name) !== undefined) {
      throw new UsageError("Cannot use --advertise or --name: the worker announces itself nowhere (--announce)");
    }
    if (flags.name !== undefined && !NAME.test(flags.name)) {
      throw new UsageError(`Cannot use --name: must be up to 128 letters, digits, _ . = or -, given "${flags.name}"`);
    }
    if (flags.advertise !== undefined) parseAddress(flags.advertise);
    this.#flags = flags;
    this.#terminal = terminal;
  }

  /** The worker listens. */
  begin({ port }: { readonly port: number }): void {
    if (this.#place === undefined) return;
    const address = this.#flags.advertise ?? formatAddress({ hostname: hostname(), port });
    this.#announcer = this.#announce(this.#place, address);
  }

  /** The worker has loaded a model. */
  async loaded({ adapter, digest, kvPages }: EngineInfo): Promise<void> {
    (await this.#announcer)?.loaded({ adapter, digest, kvTokens: kvPages * PAGE_TOKENS });
  }

  /** Withdraws what was announced; harmless when that is done. */
  async end(): Promise<void> {
    await (await this.#announcer)?.close();
  }

  async #announce(place: NatsPlace, address: string): Promise<NatsAnnouncer> {
    // The client of NATS is loaded only where it is used.
    const { NatsAnnouncer } = await import("../group/membership/nats_announcer.ts");
    return new NatsAnnouncer({
      place,
      name: this.#flags.name ?? address.replaceAll(/[^A-Za-z0-9_.=-]/g, "-"),
      announcement: { address, protocol: PROTOCOL_VERSION, version: project.version },
      log: (line) => this.#terminal.error(line),
    });
  }
}
