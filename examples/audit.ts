/** Decodes sparsely and audits: how many of the tokens would dense decoding have drawn too? */

// deno-lint-ignore-file no-console -- what an example finds, it prints

const url = Deno.env.get("TIDEPOOL_URL") ?? "http://127.0.0.1:8000";

interface Answer {
  readonly choices: readonly { readonly message: { readonly content: string } }[];
  readonly usage: {
    readonly attention: {
      readonly mode: string;
      readonly budget: number;
      readonly audit: { readonly checked: number; readonly agreed: number; readonly "mean_kl": number | null };
    };
  };
}

const response = await fetch(`${url}/v1/chat/completions`, {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({
    messages: [
      {
        role: "user",
        content: "Fog lay on the old harbour. The magic number for harbour is 7391. The gulls were asleep.",
      },
      { role: "user", content: "What is the magic number for harbour?" },
    ],
    temperature: 0,
    // A budget this small shows differences even in a short context.
    attention: { mode: "sparse", budget: 16, correction: "audit" },
  }),
});
if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);

const { choices, usage: { attention } }: Answer = await response.json();
const { checked, agreed, mean_kl: meanKl } = attention.audit;
console.log(choices[0]?.message.content);
console.log(
  `${attention.mode}, budget ${attention.budget}: ${agreed} of ${checked} tokens are those of dense decoding`,
);
console.log(`mean KL(dense || sparse): ${meanKl?.toFixed(4) ?? "not measured"} nats`);
