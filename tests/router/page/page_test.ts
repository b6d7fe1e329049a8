/** The page in a real browser, against the application with scripted answers: what a person does with it, and what may go wrong. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";

import { browserTest, sharedBrowser, Visitor } from "../../support/browser.ts";
import { PageService } from "../../support/page_service.ts";

const AXE = fileURLToPath(import.meta.resolve("axe-core"));

const HOSTILE = [
  "# Title\n\n**bold** and `code`\n\n",
  "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">",
  "![pixel](http://192.0.2.1/pixel.png) [run](javascript:document.title='owned') [link](https://example.com/a)",
  "<iframe src=http://192.0.2.1/></iframe><form action=http://192.0.2.1/><button>Post</button></form>",
  "<style>body{display:none}</style><p style='position:fixed' onclick='document.title=1'>text</p>",
].join("\n\n");

const browser = sharedBrowser();

browserTest(
  "Page: asks, streams, stops, edits, answers again, and finds its conversations after a reload",
  async () => {
    await using served = await PageService.start();
    await using visitor = await Visitor.open(browser(), served.origin);
    const { page } = visitor;
    served.service.say("The **tide** is `high`.", { prefill: [10, 20] });
    await visitor.ask("How is the tide?");
    assert.match(await visitor.answer(), /^The tide is high\./);
    assert.equal(await page.locator(".markdown strong").innerText(), "tide");
    assert.match(await page.locator(".facts").innerText(), /Sparse layers read 64 of/);

    served.service.say("And so on and so on and so on", { stallAfter: 6 });
    await visitor.ask("Tell me more");
    await page.getByText("Writing").waitFor();
    await page.getByText("And so on").first().waitFor();
    await page.getByRole("button", { name: "Stop" }).click();
    await page.getByText("Stopped.").waitFor();
    await served.service.until(() => served.service.generator.live === 0);
    assert.match(await page.getByRole("article", { name: "Answer" }).last().innerText(), /^And so/);

    served.service.say("Quite low.");
    await page.getByRole("button", { name: "Edit question" }).last().click();
    await page.getByRole("textbox", { name: "Question", exact: true }).fill("And at noon?");
    await page.getByRole("button", { name: "Ask again" }).click();
    assert.match(await visitor.answer(), /^Quite low/);
    const prompt = served.service.tokenizer.decode(served.service.generator.requests.at(-1)?.promptTokens ?? []);
    assert.match(prompt, /How is the tide\?.*The \*\*tide\*\* is `high`\..*And at noon\?/s);
    assert.doesNotMatch(prompt, /Tell me more/);

    served.service.say("Still low.");
    await page.getByRole("button", { name: "Answer again" }).last().click();
    await page.getByText("Still low.").waitFor();
    await visitor.answer();
    await page.reload();
    await page.getByText("Still low.").waitFor();
    assert.equal(await page.getByRole("article").count(), 4);
    await page.getByRole("button", { name: "New conversation" }).click();
    await page.getByRole("button", { name: "How is the tide?", exact: true }).click();
    await page.getByText("Still low.").waitFor();
    visitor.check();
  },
);

browserTest(
  "Page: settings and system prompt go along; a document is a message of its own, counted before it is sent",
  async () => {
    await using served = await PageService.start();
    await using visitor = await Visitor.open(browser(), served.origin);
    const { page } = visitor;
    await visitor.drop("harbour.txt", "Fog lay on the old harbour. ".repeat(40));
    await visitor.drop("picture.png", "\0\0");
    await page.getByText("picture.png is not a text").waitFor();
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByRole("textbox", { name: "System prompt" }).fill("Be brief");
    await page.getByRole("spinbutton", { name: "Temperature" }).fill("0.5");
    await page.getByRole("combobox", { name: "Mode" }).selectOption("sparse");
    await page.getByRole("spinbutton", { name: "Budget, positions" }).fill("32");
    await page.getByRole("textbox", { name: "Your question" }).fill("What lay on the harbour?");
    const counted = page.locator(".tokens").filter({ hasText: "of 4,096 tokens" });
    await counted.waitFor();
    const shown = Number(/([\d,]+) of/.exec(await counted.innerText())?.[1]?.replace(",", ""));
    await page.getByRole("button", { name: "Send" }).click();
    await visitor.answer();
    const [request] = served.service.generator.requests;
    assert.equal(request?.promptTokens.length, shown, "the count was exact");
    assert.equal(request?.sampling.temperature, 0.5);
    assert.deepEqual([request?.attention.mode, request?.attention.budget], ["sparse", 32]);
    const prompt = served.service.tokenizer.decode(request?.promptTokens ?? []);
    assert.match(prompt, /<\|system\|>\nBe brief.*<\|user\|>\nFog lay.*<\|user\|>\nWhat lay on/s);
    visitor.check();
  },
);

browserTest("Page: nothing in an answer runs, loads or posts", async () => {
  await using served = await PageService.start();
  await using visitor = await Visitor.open(browser(), served.origin);
  const { page } = visitor;
  served.service.say(HOSTILE);
  await visitor.ask("Attack");
  await visitor.answer();
  const answer = page.locator(".markdown").last();
  assert.equal(await answer.locator("script, img, iframe, form, button, style, [style], [onclick]").count(), 0);
  assert.equal(await answer.locator("a[href]").count(), 1);
  assert.equal(await answer.locator("a[href]").getAttribute("href"), "https://example.com/a");
  assert.equal(await answer.locator("a[href]").getAttribute("rel"), "noopener noreferrer nofollow");
  assert.equal(await answer.locator("h1").innerText(), "Title");
  assert.match(await answer.innerText(), /<script>document\.title/, "it is shown as it was written");
  assert.equal(await page.title(), "Tidepool");
  visitor.check();
  // Were it to get past the sanitizer, the policy would still hold.
  const blocked = page.waitForEvent("console", (message) => /Content Security Policy|TrustedHTML/.test(message.text()));
  await page.evaluate(`{
    const image = new Image();
    image.src = "http://192.0.2.1/pixel.png";
    try { document.body.innerHTML = "<b></b>"; } catch (error) { console.error(String(error)); }
  }`);
  await blocked;
  assert.deepEqual(visitor.strays.filter((url) => !url.startsWith("http://192.0.2.1/pixel")), []);
});

browserTest("Page: asks for a key, says when it is wrong, and goes on with the right one", async () => {
  await using served = await PageService.start({ keys: "alice:sk-alice\n" });
  await using visitor = await Visitor.open(browser(), served.origin);
  const { page } = visitor;
  await page.getByText("The service wants a key.").waitFor();
  await page.getByLabel("Key", { exact: true }).fill("sk-wrong");
  await page.getByRole("button", { name: "Use key" }).click();
  await page.getByText("The service does not know this key.").waitFor();
  await page.getByLabel("Key", { exact: true }).fill("sk-alice");
  await page.getByRole("button", { name: "Use key" }).click();
  await page.getByText("tokens free").waitFor();
  await visitor.ask("Hello?");
  assert.match(await visitor.answer(), /^Hello, wide world!/);
  await page.reload();
  await page.getByText("org/tide").waitFor();
  assert.equal(await page.getByRole("dialog").count(), 0, "the tab remembers it");
  visitor.check(/401/);
});

browserTest("Page: says when the service is gone, keeps what there is, and goes on when it is back", async () => {
  await using served = await PageService.start();
  await using visitor = await Visitor.open(browser(), served.origin);
  const { page } = visitor;
  served.service.say("Half an answer and then", { stallAfter: 5 });
  await visitor.ask("Will you stay?");
  await page.getByText("Writing").waitFor();
  await page.getByText("Half an answer").first().waitFor();
  await served.goAway();
  await page.getByText("the connection to the service broke off").waitFor();
  assert.match(await page.getByRole("article", { name: "Answer" }).innerText(), /^Half an answer/);
  await page.getByRole("banner").getByText("The service does not answer").waitFor();
  await served.comeBack();
  await page.getByRole("banner").getByText("tokens free").waitFor();
  served.service.say("Here I am.");
  await page.getByRole("button", { name: "Answer again" }).click();
  await page.getByText("Here I am.", { exact: true }).waitFor();
  visitor.check(/ERR_|Failed to load/);
});

browserTest(
  "Page: no serious finding of axe, in light and dark, wide and narrow; keys reach everything",
  async () => {
    await using served = await PageService.start();
    served.service.say(`A list\n\n* one\n* two\n\n\`\`\`\ncode\n\`\`\`\n\n| a | b |\n|---|---|\n| 1 | 2 |`);
    for (
      const [theme, size] of [["light", { width: 1360, height: 860 }], ["dark", { width: 390, height: 844 }]] as const
    ) {
      await using visitor = await Visitor.open(browser(), served.origin, size);
      const { page } = visitor;
      await page.evaluate(`localStorage.setItem("tidepool.theme", "${theme}")`);
      await page.reload();
      await page.getByRole("button", { name: "Settings" }).click();
      await page.getByRole("textbox", { name: "Your question" }).fill("A list");
      await page.keyboard.press("Enter");
      await visitor.answer();
      for (const view of ["Chat", "Tide", "Group"]) {
        const button = page.getByRole("navigation").getByRole("button", { name: view });
        if (await button.isVisible() && await button.getAttribute("aria-pressed") === "false") await button.click();
        // By the debugger's way in: the page's own policy refuses scripts of others.
        await page.evaluate(await Deno.readTextFile(AXE));
        const { violations } = await page.evaluate<{ violations: Finding[] }>("axe.run()");
        const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
        const described = serious.map(({ id, nodes }) => `${theme} ${view}: ${id}: ${nodes.map(({ html }) => html)}`);
        assert.deepEqual(described, []);
      }
      const wide = await page.evaluate("document.documentElement.scrollWidth <= innerWidth");
      assert.ok(wide, `nothing is cut off at ${size.width} px`);
      visitor.check();
    }
  },
);

interface Finding {
  readonly id: string;
  readonly impact: string;
  readonly nodes: readonly { readonly html: string }[];
}

browserTest("Page: at most 150 KB compressed, and ready soon", async () => {
  await using served = await PageService.start();
  await using visitor = await Visitor.open(browser(), served.origin);
  await visitor.page.getByRole("textbox", { name: "Your question" }).waitFor();
  const { bytes, readyMs } = await visitor.page.evaluate<{ bytes: number; readyMs: number }>(`{
    const files = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
      .filter(({ name }) => !/health|models/.test(name));
    const [page] = performance.getEntriesByType("navigation");
    ({ bytes: files.reduce((sum, { transferSize }) => sum + transferSize, 0), readyMs: page.domInteractive });
  }`);
  assert.ok(bytes > 20_000 && bytes <= 150 * 1024, `${bytes} bytes`);
  assert.ok(readyMs < 20_000, `interactive after ${readyMs} ms`);
  visitor.check();
});
