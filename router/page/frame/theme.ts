/** Light, dark, or as the system has it. */

import { Observable } from "./observable.ts";

/** In the order in which the button goes through them. */
export const THEMES = ["auto", "light", "dark"] as const;
/** `auto`: as the system has it. */
export type Theme = typeof THEMES[number];

const KEPT = "tidepool.theme";

/** The chosen colours, kept in this browser. */
export const theme: Observable<Theme> = new Observable(
  THEMES.find((name) => name === localStorage.getItem(KEPT)) ?? "auto",
);

const system = matchMedia("(prefers-color-scheme: dark)");

/** The theme that is shown now, light or dark. */
export const scheme: Observable<"light" | "dark"> = new Observable(schemeNow());

function schemeNow(): "light" | "dark" {
  if (theme.value !== "auto") return theme.value;
  return system.matches ? "dark" : "light";
}

function showTheme(): void {
  const now = schemeNow();
  // Before anything is drawn in it.
  document.documentElement.dataset.theme = now;
  scheme.set(now);
  localStorage.setItem(KEPT, theme.value);
}

theme.subscribe(showTheme);
system.addEventListener("change", showTheme);
showTheme();
