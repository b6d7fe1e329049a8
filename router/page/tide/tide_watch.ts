/** Watches answers on their way: opens the stream of the sequence, and fetches the text that it reads. */

import { Observable } from "../frame/observable.ts";
import type { Service, WireMessage } from "../service/service.ts";
import { ServiceError } from "../service/service.ts";
import { streamTide } from "../service/tide_stream.ts";
import { Recording } from "./recording.ts";

/** Recordings are kept for so many answers, the newest. */
const MAX_RECORDINGS = 6;

/** Recordings by answer. */
export class TideWatch {
  /** Whether answers are watched: it costs the service a little. */
  readonly isOn: Observable<boolean> = new Observable(true);
  /** The recording that is shown; undefined: there is none. */
  readonly shown: Observable<Recording | undefined> = new Observable<Recording | undefined>(undefined);
  /** Why an answer could not be watched. */
  readonly trouble: Observable<string | undefined> = new Observable<string | undefined>(undefined);
  readonly #service: Service;
  readonly #recordings = new Map<string, Recording>();
  #abort = new AbortController();

  constructor(service: Service) {
    this.#service = service;
  }

  /** Watches the answers to come, or none; one that is on its way is not watched any longer. */
  turn(isOn: boolean): void {
    this.isOn.set(isOn);
    if (!isOn) this.#abort.abort();
  }

  /** Watches an answer that has begun, if watching is on. */
  begin(answer: string, response: string, messages: readonly WireMessage[]): void {
    this.trouble.set(undefined);
    if (!this.isOn.value) return;
    const recording = new Recording(answer);
    this.#recordings.set(answer, recording);
    const [oldest] = this.#recordings.keys();
    if (oldest !== undefined && this.#recordings.size > MAX_RECORDINGS) this.#recordings.delete(oldest);
    this.shown.set(recording);
    this.#abort = new AbortController();
    void this.#follow(recording, response, this.#abort.signal);
    void this.#readPrompt(recording, messages, this.#abort.signal);
  }

  /** The answer has grown. */
  append(answer: string, text: string, tokens: number): void {
    this.#recordings.get(answer)?.append(text, tokens);
  }

  /** Whether an answer was watched. */
  has(answer: string): boolean {
    return this.#recordings.has(answer);
  }

  /** Shows the recording of an answer. */
  show(answer: string): void {
    this.shown.set(this.#recordings.get(answer));
  }

  async #follow(recording: Recording, response: string, signal: AbortSignal): Promise<void> {
    try {
      for await (const event of streamTide(this.#service, response, signal)) recording.take(event);
    } catch (error) {
      // It may have ended before it could be watched.
      if (signal.aborted || (error instanceof ServiceError && error.code === "not_found")) return;
      this.trouble.set(`Cannot watch this answer: ${error instanceof Error ? error.message : String(error)}`);
    } finally {
      recording.isOver = true;
      recording.version++;
    }
  }

  async #readPrompt(recording: Recording, messages: readonly WireMessage[], signal: AbortSignal): Promise<void> {
    try {
      recording.describe(await this.#service.promptPieces(messages, signal));
    } catch (error) {
      if (signal.aborted) return;
      this.trouble.set(`Cannot show the text: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}
