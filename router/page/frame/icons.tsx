/** The few pictures of the page, drawn with the colour of the text around them. */

import type { VNode } from "preact";

const PATHS = {
  wave: "M2 8c2 0 2-2 4-2s2 2 4 2 2-2 4-2 2 2 4 2M2 13c2 0 2-2 4-2s2 2 4 2 2-2 4-2 2 2 4 2",
  group: "M3 4h14v4H3zM3 12h14v4H3zM6 6h.01M6 14h.01",
  chat: "M3 4h14v10H9l-4 3v-3H3z",
  list: "M3 5h14M3 10h14M3 15h14",
  plus: "M10 4v12M4 10h12",
  send: "M10 16V4M5 9l5-5 5 5",
  stop: "M6 6h8v8H6z",
  clip: "M14 7l-5 5a1.5 1.5 0 002 2l5.5-5.5a3 3 0 00-4.5-4.5L6 10a5 5 0 007 7l3-3",
  close: "M5 5l10 10M15 5L5 15",
  edit: "M4 16l1-4 8-8 3 3-8 8z",
  retry: "M15.5 8A6 6 0 104 11m11.5-7v4h-4",
  copy: "M7 7h9v9H7zM4 13V4h9",
  settings: "M3 6h8m4 0h2M3 14h2m4 0h8M11 4v4M5 12v4",
  theme: "M10 3a7 7 0 100 14zM10 3a7 7 0 010 14",
  key: "M12 8a3 3 0 11-3-3 3 3 0 013 3zm-1 2l6 6m-2-2l2-2",
  bin: "M4 6h12M8 6V4h4v2M6 6l1 10h6l1-10",
  file: "M5 3h7l3 3v11H5zM12 3v3h3",
} as const;

/** One of the pictures. */
export type IconName = keyof typeof PATHS;

/** One of the icons; its meaning is in the text next to it or in the label of its button. */
export function Icon({ name }: { readonly name: IconName }): VNode {
  return (
    <svg class="icon" viewBox="0 0 20 20" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
