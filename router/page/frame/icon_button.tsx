/** A small button that shows a picture alone. */

import type { VNode } from "preact";
import { Icon, type IconName } from "./icons.tsx";

/** Its label is for those who do not see the picture. */
export function IconButton({ icon, label, onClick }: {
  readonly icon: IconName;
  readonly label: string;
  readonly onClick: () => void;
}): VNode {
  return (
    <button type="button" class="quiet small" aria-label={label} onClick={onClick}>
      <Icon name={icon} />
    </button>
  );
}
