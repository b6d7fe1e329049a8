/**
 * Memory of a host that its workers pass large messages through: a file that never reaches a disk, which one worker writes and the
 * others read, mapped where it can be. A copy in and a copy out cost a fraction of what a socket does, and one serves all. Knows
 * slots and bytes; knows nothing of what they hold.
 */

import { MemoryMap } from "./memory_map.ts";

/** What another worker needs to find the file, and to be sure that it is the same one. */
export interface SharedOffer {
  readonly path: string;
  readonly nonce: Uint32Array;
}

/** Where bytes lie in the file. */
export interface SharedPlace {
  readonly slot: number;
  readonly bytes: number;
}

/** Only such files are opened, whatever a peer says. */
const PLACE = /^\/dev\/shm\/tidepool-[0-9a-f]{32}$/;
const DIRECTORY = "/dev/shm/tidepool-";

const NONCE_WORDS = 8;
/** Slots begin after the nonce, at a page of their own. */
const FIRST_BYTE = 4096;
/** One more than the messages of a worker that may be on their way, and one that is being written. */
const SLOTS = 6;
/** Larger messages go through sockets. Memory is taken as it is written. */
const SLOT_BYTES = 32 << 20;
const FILE_BYTES = FIRST_BYTE + SLOTS * SLOT_BYTES;

/** The file that this worker writes; `close` must be called. */
export class SharedOutbox {
  readonly offer: SharedOffer;
  readonly #file: Deno.FsFile;
  readonly #map: MemoryMap | undefined;
  readonly #free = Array.from({ length: SLOTS }, (_, slot) => slot);
  /** By slot: bytes that the system has given memory for. */
  readonly #backed = new Array<number>(SLOTS).fill(0);
  #isLinked = true;
  #isClosed = false;

  private constructor(offer: SharedOffer, file: Deno.FsFile) {
    this.offer = offer;
    this.#file = file;
    this.#map = MemoryMap.open(offer.path, FILE_BYTES);
  }

  /** @returns undefined where the host has no such memory, or does not let this process use it */
  static create(): SharedOutbox | undefined {
    const name = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0"));
    const offer = { path: DIRECTORY + name.join(""), nonce: crypto.getRandomValues(new Uint32Array(NONCE_WORDS)) };
    return orNone(() => {
      const file = Deno.openSync(offer.path, { read: true, write: true, createNew: true, mode: 0o600 });
      try {
        file.truncateSync(FILE_BYTES);
        writeAll(file, new Uint8Array(offer.nonce.buffer), 0);
        return new SharedOutbox(offer, file);
      } catch (error) {
        file.close();
        remove(offer.path);
        throw error;
      }
    });
  }

  /** Copies bytes into a free slot. @returns undefined when none is free, or the host has no more memory for it */
  put(bytes: Uint8Array): SharedPlace | undefined {
    const slot = this.#isClosed || bytes.length > SLOT_BYTES ? undefined : this.#free.pop();
    if (slot === undefined) return undefined;
    if (this.#write(slot, bytes)) return { slot, bytes: bytes.length };
    // Containers often have 64 MB: the slots that have memory stay in use.
    return undefined;
  }

  /** @returns whether there was memory for it */
  #write(slot: number, bytes: Uint8Array): boolean {
    const offset = offsetOf(slot);
    const backed = this.#backed[slot] ?? 0;
    if (this.#map?.bytes !== undefined && bytes.length <= backed) {
      this.#map.bytes.set(bytes, offset);
      return true;
    }
    return orNone(() => {
      writeAll(this.#file, bytes, offset);
      this.#backed[slot] = Math.max(backed, bytes.length);
      return true;
    }) ?? false;
  }

  /** A slot was read by all. */
  free({ slot }: SharedPlace): void {
    this.#free.push(slot);
  }

  /** No one else will open it: it is gone when those who have it open are. */
  unlink(): void {
    if (!this.#isLinked) return;
    this.#isLinked = false;
    remove(this.offer.path);
  }

  /** Nothing is put there any more; harmless when it is closed. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.unlink();
    this.#map?.close();
    this.#file.close();
  }
}

/** The file of another worker; `close` must be called. */
export class SharedInbox {
  readonly #file: Deno.FsFile;
  readonly #map: MemoryMap | undefined;

  private constructor(file: Deno.FsFile, path: string) {
    this.#file = file;
    this.#map = MemoryMap.open(path, FILE_BYTES);
  }

  /** @returns undefined where it cannot be read from here: the other worker is on another host */
  static open({ path, nonce }: SharedOffer): SharedInbox | undefined {
    if (!PLACE.test(path) || nonce.length !== NONCE_WORDS) return undefined;
    const file = orNone(() => Deno.openSync(path, { read: true }));
    if (file === undefined) return undefined;
    const found = new Uint32Array(NONCE_WORDS);
    const inbox = new SharedInbox(file, path);
    const isRead = orNone(() => readAll(file, new Uint8Array(found.buffer), 0)) ?? false;
    if (isRead && found.every((word, i) => word === nonce[i])) return inbox;
    inbox.close();
    return undefined;
  }

  /** Reads what lies in a place. @returns whether that is as much as was expected */
  read({ slot, bytes }: SharedPlace, into: Uint8Array): boolean {
    const isThere = into.length === bytes && bytes <= SLOT_BYTES && slot < SLOTS;
    return isThere && this.#read(offsetOf(slot), into);
  }

  #read(offset: number, into: Uint8Array): boolean {
    const bytes = this.#map?.bytes?.subarray(offset, offset + into.length);
    if (bytes === undefined) return readAll(this.#file, into, offset);
    into.set(bytes);
    return true;
  }

  close(): void {
    this.#map?.close();
    this.#file.close();
  }
}

function offsetOf(slot: number): number {
  return FIRST_BYTE + slot * SLOT_BYTES;
}

function writeAll(file: Deno.FsFile, bytes: Uint8Array, offset: number): void {
  file.seekSync(offset, Deno.SeekMode.Start);
  for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
}

/** @returns whether there were as many bytes */
function readAll(file: Deno.FsFile, into: Uint8Array, offset: number): boolean {
  file.seekSync(offset, Deno.SeekMode.Start);
  for (let done = 0; done < into.length;) {
    const got = file.readSync(into.subarray(done));
    if (got === null) return false;
    done += got;
  }
  return true;
}

/** What `use` gives; undefined where the system does not let it, rather than that it is wrong. */
function orNone<T>(use: () => T): T | undefined {
  try {
    return use();
  } catch (error) {
    const isOfTheSystem = error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied ||
      error instanceof Deno.errors.NotCapable || (error instanceof Error && "code" in error);
    if (isOfTheSystem) return undefined;
    throw error;
  }
}

/** Removes a file that something else, such as the system's clean-up, may have removed. */
function remove(path: string): void {
  orNone(() => Deno.removeSync(path));
}
