/** The page on the real service: a fact hidden in a long text is found, and the tide shows where the model looked for it. */

import assert from "node:assert/strict";

import { browserTest, openBrowser, Visitor } from "../support/browser.ts";
import { LiveService } from "../support/live_service.ts";
import { needle } from "../support/needles.ts";
import { until } from "../support/until.ts";

browserTest("Page: the tide shows a needle at its place, and what is always read", async () => {
  const { prompt_text: text, question, answer } = await needle("n1000-07");
  const fact = /\d{4,}/.exec(answer)?.[0] ?? assert.fail(`no number in ${answer}`);
  await using live = await LiveService.start({ kvTokens: 4096 });
  const browser = await openBrowser();
  try {
    await using visitor = await Visitor.open(browser, live.origin);
    const { page } = visitor;
    await visitor.attendSparsely(64);
    await visitor.drop("chapter.txt", text);
    await visitor.ask(question);
    assert.match(await visitor.answer(), new RegExp(`^${answer.replace(".", "\\.")}`));
    // Passages are weighed once more at the end.
    await page.locator(".recording[data-over=true]").waitFor();
    const rows = Number(await page.locator(".recording").getAttribute("data-rows"));
    assert.ok(rows >= 5, `${rows} rows were watched`);
    assert.match(
      await page.locator(".share").innerText(),
      /64 of 1,0\d\d positions are read in each of 8 sparse layers/,
    );
    assert.match(await page.locator(".legend").innerText(), /the first 4 and the newest 16/);
    const found = page.locator(".passages button").first();
    assert.match((await found.innerText()).replaceAll(/\s/g, ""), new RegExp(fact.slice(0, 4)));
    await found.click();
    const heat = await heatThere(visitor);
    assert.ok(heat.there > 2 * heat.median, `the strip is hot where the fact stands: ${heat.there}, ${heat.median}`);
    // The text follows, in its own time; the page's own rules let no script of a string wait for that inside.
    await until(() =>
      page.evaluate<boolean>(`{
        const place = document.querySelector(".recording > .text").getBoundingClientRect();
        const block = [...document.querySelectorAll(".kv-page")].find((block) => block.textContent.includes("${fact}"));
        const { top, bottom } = block.getBoundingClientRect();
        top < place.bottom && bottom > place.top;
      }`)
    );
    visitor.check();
  } finally {
    await browser.close();
  }
});

/** How far the lanes of the strip differ from its ground at the position that is pointed at, and in the median. */
async function heatThere({ page }: Visitor): Promise<{ readonly there: number; readonly median: number }> {
  return await page.evaluate<{ there: number; median: number }>(`{
    const canvas = document.querySelector(".strip canvas");
    const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const ground = Number.parseInt(getComputedStyle(canvas).getPropertyValue("--strip-ground").trim().slice(1), 16);
    // The middle of each of the four lanes, which are 12 pixels high and 2 apart.
    const heat = Array.from({ length: width }, (_, x) => Math.max(...[6, 20, 34, 48].map((y) => {
      const at = (y * width + x) * 4;
      return [16, 8, 0].reduce((sum, shift, i) => sum + Math.abs(data[at + i] - (ground >> shift & 255)), 0);
    })));
    const { value, max } = document.querySelector(".cursor input");
    const at = Math.floor(value / max * width);
    ({ there: Math.max(...heat.slice(at, at + 8)), median: heat.toSorted((a, b) => a - b)[width >> 1] });
  }`);
}
