/**
 * A real browser for tests of the page: Debian's Chromium, driven by playwright-core. Remembers what no page may do: write an
 * error to the console, throw, or ask another host for anything. The test that opens one disposes of it.
 */

import assert from "node:assert/strict";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";

import { fileExists } from "../../router/host/file_exists.ts";

/** Where Debian and Ubuntu put it, and what others call it. */
const PLACES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** Where it is; undefined: there is none, and tests that need it say so and are left out. */
const FOUND = await find();

async function find(): Promise<string | undefined> {
  const wanted = Deno.env.get("TIDEPOOL_BROWSER");
  for (const path of wanted === undefined ? PLACES : [wanted]) if (await fileExists(path)) return path;
  return undefined;
}

/** The browser of this machine. @throws when there is none, with how to get it */
export async function openBrowser(): Promise<Browser> {
  if (FOUND === undefined) {
    throw new Error(`Cannot test the page: no browser at ${PLACES.join(", ")} (apt-get install -y chromium)`);
  }
  // Its own sandbox needs rights that containers do not give; the pages are ours.
  return await chromium.launch({ executablePath: FOUND, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
}

/** Registers a test that drives a browser. Sanitizers would see the pipes to it, and one that several tests share outlives each. */
export function browserTest(name: string, fn: () => Promise<void>): void {
  const isLeftOut = FOUND === undefined;
  Deno.test({
    name: `${name}${isLeftOut ? " (left out: there is no browser)" : ""}`,
    ignore: isLeftOut,
    sanitizeOps: false,
    sanitizeResources: false,
    fn,
  });
}

/**
 * One browser for all tests of a file, as starting it takes longer than any of their steps: opened before the first of them, closed
 * after the last. Call it once, at the top.
 * @returns the browser; only tests may ask for it
 */
export function sharedBrowser(): () => Browser {
  let browser: Browser | undefined;
  Deno.test.beforeAll(async () => {
    if (FOUND !== undefined) browser = await openBrowser();
  });
  Deno.test.afterAll(async () => await browser?.close());
  return () => browser ?? assert.fail("the browser is open only while tests run");
}

/** One visitor: a profile of its own, and one page. */
export class Visitor implements AsyncDisposable {
  readonly page: Page;
  /** Console errors and exceptions. */
  readonly troubles: string[] = [];
  /** Requests to any other host. */
  readonly strays: string[] = [];
  readonly #context: BrowserContext;

  private constructor(context: BrowserContext, page: Page, origin: string) {
    this.#context = context;
    this.page = page;
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") this.troubles.push(message.text());
    });
    page.on("pageerror", (error) => this.troubles.push(error.message));
    context.on("request", (request) => {
      if (!request.url().startsWith(origin)) this.strays.push(request.url());
    });
  }

  /** Opens the page of a service. */
  static async open(browser: Browser, origin: string, size = { width: 1360, height: 860 }): Promise<Visitor> {
    const context = await browser.newContext({ viewport: size });
    const visitor = new Visitor(context, await context.newPage(), origin);
    visitor.page.setDefaultTimeout(60_000);
    await visitor.page.goto(`${origin}/`);
    return visitor;
  }

  /** Writes a question and sends it. */
  async ask(question: string): Promise<void> {
    await this.page.getByRole("textbox", { name: "Your question" }).fill(question);
    await this.page.getByRole("button", { name: "Send" }).click();
  }

  /** Has answers drawn greedily with sparse attention of so many positions. */
  async attendSparsely(budget: number): Promise<void> {
    await this.page.getByRole("button", { name: "Settings" }).click();
    await this.page.getByRole("spinbutton", { name: "Temperature" }).fill("0");
    await this.page.getByRole("combobox", { name: "Mode" }).selectOption("sparse");
    await this.page.getByRole("spinbutton", { name: "Budget, positions" }).fill(String(budget));
    await this.page.getByRole("button", { name: "Settings" }).click();
  }

  /** Drops a text file on the chat. */
  async drop(name: string, text: string): Promise<void> {
    // As text: what runs in the page has other types than what runs here.
    await this.page.evaluate(`{
      const data = new DataTransfer();
      data.items.add(new File([${JSON.stringify(text)}], ${JSON.stringify(name)}, { type: "text/plain" }));
      document.querySelector("main").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
    }`);
  }

  /** Waits until the newest answer is over. @returns its text */
  async answer(): Promise<string> {
    const answer = this.page.getByRole("article", { name: "Answer" }).last();
    await answer.getByRole("button", { name: "Answer again" }).waitFor({ timeout: 90_000 });
    return await answer.innerText();
  }

  /** Fails when the page did what no page may do. @param expected errors that the test has provoked */
  check(expected?: RegExp): void {
    assert.deepEqual(this.strays, []);
    assert.deepEqual(this.troubles.filter((trouble) => expected === undefined || !expected.test(trouble)), []);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#context.close();
  }
}
