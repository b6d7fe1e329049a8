/**
 * Workers behind a name: every address of a headless service, or every target of its SRV records, asked for
 * again and again. Knows records; knows nothing of what is at an address.
 */

import { messageOf } from "../../../kernels/errors.ts";
import type { Address } from "../../../workers/protocol.ts";
import { formatAddress } from "../../host/address.ts";
import { describeJoin, type JoinSource } from "../../host/join_source.ts";
import type { Membership, MembershipListener, PlanMember } from "./membership.ts";
import { type MemberReading, pollMembers } from "./poll_members.ts";

/** Where and how often to ask. */
export interface DnsOptions {
  readonly planOf: PlanMember;
  /** Between two questions. @default 2000 */
  readonly everyMs?: number;
  /** For one answer. @default 5000 */
  readonly deadlineMs?: number;
  /** @default the system's */
  readonly nameServer?: { readonly ipAddr: string; readonly port: number };
}

type DnsSource = Extract<JoinSource, { readonly kind: "dns" | "srv" }>;

const EVERY_MS = 2000;
const DEADLINE_MS = 5000;

/** See the top of this file. */
export class DnsMembership implements Membership {
  readonly isOpen = true;
  readonly origin: string;
  readonly #source: DnsSource;
  readonly #options: DnsOptions;

  constructor(source: DnsSource, options: DnsOptions) {
    this.#source = source;
    this.#options = options;
    this.origin = describeJoin(source);
  }

  async watch(listener: MembershipListener, signal: AbortSignal): Promise<void> {
    const { planOf, everyMs = EVERY_MS } = this.#options;
    await pollMembers({ read: () => this.#ask(signal), planOf, everyMs, listener, signal });
  }

  /** A name without records is an answer: there are no workers. */
  async #ask(signal: AbortSignal): Promise<MemberReading> {
    const { deadlineMs = DEADLINE_MS, nameServer } = this.#options;
    const options = {
      signal: AbortSignal.any([signal, AbortSignal.timeout(deadlineMs)]),
      ...(nameServer === undefined ? {} : { nameServer }),
    };
    try {
      const found = this.#source.kind === "srv"
        ? await srvRecords(this.#source.name, options)
        : await addressRecords(this.#source, options);
      return { found: inOrder(found).map((address) => ({ address })), trouble: undefined };
    } catch (error) {
      return { trouble: `Cannot resolve ${this.origin}: ${messageOf(error)}` };
    }
  }
}

async function addressRecords({ hostname, port }: Address, options: Deno.ResolveDnsOptions): Promise<Address[]> {
  const [four, six] = await Promise.all([
    noneIfAbsent(Deno.resolveDns(hostname, "A", options)),
    noneIfAbsent(Deno.resolveDns(hostname, "AAAA", options)),
  ]);
  return [...four, ...six].map((address) => ({ hostname: address, port }));
}

async function srvRecords(name: string, options: Deno.ResolveDnsOptions): Promise<Address[]> {
  const records = await noneIfAbsent(Deno.resolveDns(name, "SRV", options));
  return records.map(({ target, port }) => ({ hostname: target.replace(/\.$/, ""), port }));
}

/** A name that does not exist, or has no such records, is an answer; a server that fails looks the same from here. */
async function noneIfAbsent<T>(asked: Promise<T[]>): Promise<T[]> {
  try {
    return await asked;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

function inOrder(addresses: readonly Address[]): readonly Address[] {
  const byText = new Map(addresses.map((address) => [formatAddress(address), address]));
  const collator = new Intl.Collator("en", { numeric: true });
  return [...byText].sort(([a], [b]) => collator.compare(a, b)).map(([, address]) => address);
}
