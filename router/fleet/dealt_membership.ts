/**
 * Workers that come and go, dealt to several groups as they are found. One that was dealt stays with its group for as long as
 * it is found; a new one goes to a group that lacks workers, if possible one that has others on the same host. Knows who is
 * found; dials no one.
 */

import { at } from "../../kernels/at.ts";
import type { MemberPlan, Membership, MembershipListener } from "../group/membership/membership.ts";
import { byHost } from "./plan_groups.ts";

/** Shares one membership out: it is watched once, for as long as any group watches its share. */
export class DealtMembership {
  readonly #membership: Membership;
  readonly #shares: readonly Share[];
  /** By the keys of the members. */
  #dealt = new Map<string, Share>();
  #found: readonly MemberPlan[] | undefined;
  readonly #ended = new AbortController();
  #watching: Promise<void> | undefined;

  constructor(membership: Membership, groups: number) {
    this.#membership = membership;
    this.#shares = Array.from({ length: groups }, () => ({ listener: undefined }));
  }

  /** What one group sees of it. */
  of(group: number): Membership {
    const share = at(this.#shares, group);
    const { origin, isOpen } = this.#membership;
    return { origin, isOpen, watch: (listener, signal) => this.#watch(share, listener, signal) };
  }

  async #watch(share: Share, listener: MembershipListener, signal: AbortSignal): Promise<void> {
    share.listener = listener;
    if (this.#found !== undefined) listener.onMembers(this.#membersOf(share, this.#found));
    this.#watching ??= this.#membership.watch({
      onMembers: (plans) => this.#deal(plans),
      onTrouble: (reason) => this.#shares.forEach((each) => each.listener?.onTrouble(reason)),
    }, this.#ended.signal);
    const left = () => {
      share.listener = undefined;
      if (this.#shares.every((each) => each.listener === undefined)) this.#ended.abort();
    };
    if (signal.aborted) left();
    else signal.addEventListener("abort", left, { once: true });
    await this.#watching;
  }

  #deal(plans: readonly MemberPlan[]): void {
    const before = this.#dealt;
    this.#dealt = new Map(plans.flatMap(({ key }) => {
      const share = before.get(key);
      return share === undefined ? [] : [[key, share]];
    }));
    const members = plans.map((plan) => ({ plan, host: hostOf(plan) }));
    for (const { plan: { key }, host } of byHost(members, ({ host }) => host)) {
      if (!this.#dealt.has(key)) this.#dealt.set(key, this.#shareFor(host, members));
    }
    this.#found = plans;
    for (const share of this.#shares) share.listener?.onMembers(this.#membersOf(share, plans));
  }

  #membersOf(share: Share, plans: readonly MemberPlan[]): readonly MemberPlan[] {
    return plans.filter(({ key }) => this.#dealt.get(key) === share);
  }

  /** Of the shares that lack members, the one with most on the host, else the one with fewest. */
  #shareFor(host: string, members: readonly { readonly plan: MemberPlan; readonly host: string }[]): Share {
    const sizes = this.#shares.map((share) => {
      const own = members.filter(({ plan: { key } }) => this.#dealt.get(key) === share);
      return { share, own: own.length, near: own.filter((member) => member.host === host).length };
    });
    const full = Math.ceil(members.length / this.#shares.length);
    const open = sizes.filter(({ own }) => own < full);
    return at((open.length > 0 ? open : sizes).sort((a, b) => b.near - a.near || a.own - b.own), 0).share;
  }
}

/** The members of one group. */
interface Share {
  /** Undefined: no group watches it. */
  listener: MembershipListener | undefined;
}

/** Of an address, the part before the port. */
function hostOf({ key }: MemberPlan): string {
  return key.replace(/:\d+$/, "");
}
