/** Light, dark, or as the system has it. */

import { Observable } from "./observable.ts";

/** In the order in which the button goes through them. */
export const THEMES = ["auto", "light", "dark"] as const;
/** `auto`: as the system has it. */
export type Theme = typeof THEMES[number];

const KEPT = "tidepool.theme";

/** The colours that are worn, kept in this browser. */
export const theme: Observable<Theme> = new Observable(
  THEMES.find((name) => name === localStorage.getItem(KEPT)) ?? "auto",
);

function showTheme(): void {
  document.documentElement.dataset.theme = theme.value;
  localStorage.setItem(KEPT, theme.value);
}

theme.subscribe(showTheme);
showTheme();
