/** A worker's place in a group of its own. */

import type { Form } from "../../workers/protocol.ts";

/** Its peers would dial it here: there are none. */
const HERE = { hostname: "127.0.0.1", port: 1 };

/** For one worker that owns every page. */
export function loneForm(epoch: number): Omit<Form, "deadlineMs"> {
  return {
    epoch,
    index: 0,
    members: [HERE],
    weights: [64],
    matrix: false,
    alike: true,
    replicaPages: 0,
    sparseExchange: "auto",
  };
}
