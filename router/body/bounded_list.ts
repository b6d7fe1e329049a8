/** Lists in requests: their length is checked before their elements. */

import { z } from "@hono/zod-openapi";

/** A list whose length is checked first, so that a million wrong elements are one issue and not a million. */
export function list<Item extends z.ZodType>(
  item: Item,
  { min = 0, max }: { min?: number; max: number },
): z.ZodPipe<z.ZodArray<z.ZodUnknown>, z.ZodArray<Item>> {
  const { $schema: _, ...items }: Record<string, unknown> = z.toJSONSchema(item, {
    io: "input",
    unrepresentable: "any",
  });
  return z.array(z.unknown()).min(min).max(max).pipe(z.array(item))
    // The generator of the document sees only the first half of a pipe.
    .openapi({ items: items as Record<string, never> });
}
