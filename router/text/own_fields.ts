/**
 * Requests of other APIs as chat requests: which fields they share, and complaints in terms of the request that was sent. Knows paths of
 * fields; nothing of what they mean.
 */

import { RequestError } from "../errors.ts";

/** Fields that every API takes as chat does, beside its own. */
const SHARED = [
  "model temperature top_p stream seed top_k min_p repetition_penalty presence_penalty frequency_penalty",
  "stop_token_ids ignore_eos min_tokens cache_salt attention chat_template_kwargs",
].join(" ").split(" ");

/** What is handed on as it came: fields of the chat request with the same name and meaning. */
export function sharedFields(body: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(SHARED.map((field) => [field, body[field]]));
}

/**
 * @param nameOf the field of the original request, given that of the chat request
 * @throws what `prepare` throws; of a `RequestError` field and message with the other name
 */
export function withOwnFields<Prepared>(nameOf: (param: string) => string, prepare: () => Prepared): Prepared {
  try {
    return prepare();
  } catch (error) {
    if (!(error instanceof RequestError) || error.param === undefined) throw error;
    const param = nameOf(error.param);
    throw new RequestError(error.code, error.message.replaceAll(error.param, param), { param, cause: error });
  }
}
