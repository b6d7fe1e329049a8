/**
 * `deno task screenshots [--out DIR]`: pictures of the page for docs/page.md, from a running service of two workers that answers
 * a question about a long text.
 */

import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { processTerminal } from "../../../router/terminal.ts";
import { openBrowser, Visitor } from "../../support/browser.ts";
import { LiveService } from "../../support/live_service.ts";
import { needle } from "../../support/needles.ts";

const FIGURES = fileURLToPath(new URL("../../../docs/figures", import.meta.url));
const WIDE = { width: 1280, height: 860 };
const PHONE = { width: 390, height: 780 };

const { values } = parseArgs({ options: { out: { type: "string", default: FIGURES } } });
const terminal = processTerminal();
const { prompt_text: text, question } = await needle("n4000-13");
await using live = await LiveService.start({ workers: 2, kvTokens: 8192 });
const browser = await openBrowser();
try {
  await using visitor = await Visitor.open(browser, live.origin, WIDE);
  const { page } = visitor;
  page.setDefaultTimeout(600_000);
  const take = async (name: string) => {
    await page.waitForTimeout(400);
    await page.screenshot({ path: `${values.out}/${name}.png` });
    terminal.line(`${values.out}/${name}.png`);
  };
  const wear = (theme: string) => page.evaluate(`document.documentElement.dataset.theme = "${theme}"`);
  await visitor.attendSparsely(64);
  await visitor.drop("chapter.txt", text);
  await visitor.ask(question);
  await page.getByRole("button", { name: "Answer again" }).waitFor();
  // Passages are weighed once more at the end.
  await page.locator(".recording[data-over=true]").waitFor();
  await page.waitForTimeout(500);
  await page.locator(".passages button").first().click();
  await wear("light");
  await take("page-tide");
  await page.setViewportSize(PHONE);
  await wear("dark");
  await take("page-phone");
  await page.setViewportSize(WIDE);
  await page.getByRole("navigation").getByRole("button", { name: "Group" }).click();
  await page.waitForTimeout(3000);
  await page.getByRole("button", { name: "Settings" }).click();
  await page.getByRole("combobox", { name: "Correction" }).selectOption("audit");
  await page.getByRole("button", { name: "Settings" }).click();
  await page.getByRole("button", { name: "Answer again" }).click();
  await page.getByRole("button", { name: "Stop" }).waitFor();
  await page.getByRole("button", { name: "Answer again" }).waitFor();
  await page.waitForTimeout(3000);
  await take("page-group");
  visitor.check();
} finally {
  await browser.close();
}
