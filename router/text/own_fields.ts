/** Complaints about a chat request in terms of the request that it was made from. Knows paths of fields; nothing of what they mean. */

import { RequestError } from "../errors.ts";

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
