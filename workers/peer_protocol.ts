/**
 * Every message between the workers of a group, and the reading of each. Knows messages; knows nothing of connections
 * or of their order.
 */

import { type ExchangeTag, tag } from "./protocol.ts";
import { f32s, list, oneOf, record, u32s, union } from "./shape.ts";

/** One tensor for each range of rows. */
export type Tensors = readonly Float32Array[];

/** What workers send each other. */
export type PeerMessage =
  /** Rows of q that the sender has computed. */
  | ({ readonly kind: "queries"; readonly rows: Tensors } & ExchangeTag)
  /** Keys and values of rows that the sender has computed: halves, whose bits alone matter here. */
  | ({ readonly kind: "keys"; readonly rows: Tensors } & ExchangeTag)
  /** States over the sender's slice; lse as natural logarithms. */
  | ({ readonly kind: "states"; readonly o: Tensors; readonly lse: Tensors } & ExchangeTag)
  /** Tokens that the lead drew in the step before. */
  | ({ readonly kind: "tokens"; readonly tokens: Uint32Array } & ExchangeTag)
  /** Rows that end on the lead worker. */
  | ({ readonly kind: "rows"; readonly rows: Tensors } & ExchangeTag)
  /** Keys and values of the sender's rows that a selection needs everywhere: halves, whose bits alone matter here. */
  | ({ readonly kind: "replicas"; readonly rows: Tensors } & ExchangeTag);

/** Whether its tensors lie in memory that threads share: all of them do, or none. */
export function isShared(message: PeerMessage): boolean {
  if (message.kind === "tokens") return false;
  const [tensor] = message.kind === "states" ? message.o : message.rows;
  return tensor?.buffer instanceof SharedArrayBuffer;
}

type OfKind<Kind> = Extract<PeerMessage, { readonly kind: Kind }>;

const peerMessage = union<PeerMessage>({
  queries: record<OfKind<"queries">>({ kind: oneOf("queries"), ...tag, rows: list(f32s) }),
  keys: record<OfKind<"keys">>({ kind: oneOf("keys"), ...tag, rows: list(f32s) }),
  states: record<OfKind<"states">>({ kind: oneOf("states"), ...tag, o: list(f32s), lse: list(f32s) }),
  tokens: record<OfKind<"tokens">>({ kind: oneOf("tokens"), ...tag, tokens: u32s }),
  rows: record<OfKind<"rows">>({ kind: oneOf("rows"), ...tag, rows: list(f32s) }),
  replicas: record<OfKind<"replicas">>({ kind: oneOf("replicas"), ...tag, rows: list(f32s) }),
});

/**
 * Reads what another worker sent.
 * @throws {ProtocolError} naming the field that is wrong
 */
export function parsePeerMessage(value: unknown): PeerMessage {
  return peerMessage(value, "message");
}
