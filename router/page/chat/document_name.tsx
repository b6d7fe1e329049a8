/** A document as it stands beside a question. */

import type { VNode } from "preact";
import { Icon } from "../frame/icons.tsx";
import type { Attachment } from "./conversation.ts";
import { whole } from "./plain_words.ts";

/** Its name, and how long it is. */
export function DocumentName({ document: { name, text } }: { readonly document: Attachment }): VNode {
  return (
    <>
      <Icon name="file" />
      <span>{name}</span>
      <span class="size">{whole(text.length / 1000)} k characters</span>
    </>
  );
}
