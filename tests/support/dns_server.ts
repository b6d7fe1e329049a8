/** A name server for tests: answers A and SRV questions from a table that the test changes. Knows as much of DNS as that takes. */

import { createSocket, type Socket } from "node:dgram";

/** What a name has. */
export interface DnsRecords {
  readonly a?: readonly string[];
  readonly srv?: readonly { readonly target: string; readonly port: number }[];
}

const TYPE_A = 1;
const TYPE_SRV = 33;
const CLASS_IN = 1;
const TTL_S = 0;
const RESPONSE = 0x8580;
const NAME_ERROR = 3;

/** See the top of this file; for `await using` */
export class DnsServer {
  /** By name, without the last dot. */
  readonly records = new Map<string, DnsRecords>();
  /** It answers nothing. */
  isSilent = false;
  readonly #socket: Socket;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("message", (question, { port, address }) => {
      if (!this.isSilent) socket.send(this.#answer(question), port, address);
    });
  }

  static async start(address = "127.0.0.1", port = 0): Promise<DnsServer> {
    const socket = createSocket("udp4");
    await new Promise<void>((resolve) => socket.bind(port, address, resolve));
    return new DnsServer(socket);
  }

  get nameServer(): { readonly ipAddr: string; readonly port: number } {
    const { address, port } = this.#socket.address();
    return { ipAddr: address, port };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise<void>((resolve) => this.#socket.close(resolve));
  }

  #answer(question: Uint8Array): Uint8Array {
    const { name, end } = readName(question, 12);
    const type = new DataView(question.buffer, question.byteOffset).getUint16(end);
    const found = this.records.get(name.toLowerCase());
    const data = type === TYPE_A
      ? (found?.a ?? []).map((address) => Uint8Array.from(address.split("."), Number))
      : type === TYPE_SRV
      ? (found?.srv ?? []).map(({ target, port }) =>
        Uint8Array.of(...u16(0), ...u16(0), ...u16(port), ...label(target))
      )
      : [];
    const code = found === undefined ? NAME_ERROR : 0;
    const answers = code === 0 ? data : [];
    return Uint8Array.of(
      ...question.subarray(0, 2),
      ...u16(RESPONSE | code),
      ...[1, answers.length, 0, 0].flatMap(u16),
      ...question.subarray(12, end + 4),
      ...answers.flatMap((bytes) => [
        ...label(name),
        ...[type, CLASS_IN, 0, TTL_S, bytes.length].flatMap(u16),
        ...bytes,
      ]),
    );
  }
}

function readName(message: Uint8Array, at: number): { readonly name: string; readonly end: number } {
  const parts: string[] = [];
  let end = at;
  for (let length = message[end] ?? 0; length > 0; length = message[end] ?? 0) {
    parts.push(new TextDecoder().decode(message.subarray(end + 1, end + 1 + length)));
    end += 1 + length;
  }
  return { name: parts.join("."), end: end + 1 };
}

function label(name: string): number[] {
  const parts = name.split(".").map((part) => new TextEncoder().encode(part));
  return [...parts.flatMap((part) => [part.length, ...part]), 0];
}

function u16(value: number): number[] {
  return [value >> 8, value & 255];
}
