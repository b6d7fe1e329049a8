/**
 * What is known of a request before its body is read, and its outcome: made once for each request by the access
 * control, and found again by the request itself, so that no route has to hand it on.
 */

/** Who sent a request, and for what. */
export interface RequestOrigin {
  /** Echoed from the client, or made. */
  readonly requestId: string;
  /** IP address of the client, or of the proxy before it. */
  readonly client: string;
  /** Name of the API key it showed; undefined where there are no keys, or none was accepted. */
  readonly key: string | undefined;
  readonly method: string;
  /** Without the query, cut to 200 characters. */
  readonly path: string;
}

/** One request on its way through the service. */
export class RequestContext {
  readonly origin: RequestOrigin;
  /** Aborted with a `RequestError` when its body turns out not to be valid HTTP. */
  readonly malformed: AbortSignal;
  #errorCode: string | undefined;
  #isRecorded = false;

  constructor(origin: RequestOrigin, malformed: AbortSignal) {
    this.origin = origin;
    this.malformed = malformed;
  }

  /** Code of the error it was answered with; undefined when there was none. */
  get errorCode(): string | undefined {
    return this.#errorCode;
  }

  /** Whether its line in the log is written by its recorder when the answer ends, and not at the headers. */
  get isRecorded(): boolean {
    return this.#isRecorded;
  }

  /** It was refused or failed. */
  fail(code: string): void {
    this.#errorCode = code;
  }

  /** A recorder follows it to its end. */
  record(): void {
    this.#isRecorded = true;
  }
}

const contexts = new WeakMap<Request, RequestContext>();

/** Makes the context of a request known. */
export function attachContext(request: Request, context: RequestContext): void {
  contexts.set(request, context);
}

/** The context of a request; undefined for one that did not come through the access control. */
export function contextOf(request: Request): RequestContext | undefined {
  return contexts.get(request);
}
