/** Relative links of a page, and files of ours that it names: which of them lead nowhere. */

import { inlineCode, inRoot, type Page, prose } from "./pages.ts";
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

/** From the root; what is written in capitals stands for another name. */
const OWN_PATH = /^(kernels|engine|workers|router|tests|deploy|docs|examples)\/[a-z0-9_./@-]*$/;

/** Files and folders of the repository that a page names and that are not there. */
export async function missingFiles(page: Page): Promise<readonly string[]> {
  const missing: string[] = [];
  for (const path of new Set(inlineCode(page.text).filter((code) => OWN_PATH.test(code)))) {
    if (!await fileExists(inRoot(path))) missing.push(path);
  }
  return missing;
}

/** Anchors of a page's headings, as GitHub makes them. */
export function headings(text: string): readonly string[] {
  return [...prose(text).matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) =>
    heading.toLowerCase().replaceAll(/[^\p{Letter}\p{Number}\s_-]/gu, "").replaceAll(/\s/g, "-")
  );
}
