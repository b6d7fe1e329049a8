/** Relative links of a page: which of them lead nowhere. */

import { inRoot, type Page, prose } from "./pages.ts";
import { fileExists } from "../../router/host/file_exists.ts";

/** The links of a page that lead to no file, or to no heading of it. */
export async function brokenLinks(page: Page): Promise<readonly string[]> {
  const broken: string[] = [];
  for (const [, target = ""] of prose(page.text).matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^(https?|mailto):/.test(target)) continue;
    if (!await leadsSomewhere(page, target)) broken.push(target);
  }
  return broken;
}

async function leadsSomewhere(page: Page, target: string): Promise<boolean> {
  const { pathname, hash } = new URL(target, `file:///${page.path}`);
  const path = pathname.slice(1);
  const own = target.startsWith("#");
  if (!own && !await fileExists(inRoot(path))) return false;
  if (hash === "") return true;
  const text = own ? page.text : await Deno.readTextFile(inRoot(path));
  return headings(text).includes(decodeURIComponent(hash.slice(1)));
}

/** Anchors of a page's headings, as GitHub makes them. */
export function headings(text: string): readonly string[] {
  return [...prose(text).matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) =>
    heading.toLowerCase().replaceAll(/[^\p{Letter}\p{Number}\s_-]/gu, "").replaceAll(/\s/g, "-")
  );
}
