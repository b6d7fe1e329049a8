/**
 * A port for a server that is started again where it was. Ports that the system chooses will not do: while the server is away, the
 * system may give its port to anyone who connects somewhere, even to the one who looks whether it is back.
 */

/** Below those that systems choose from: 32,768 on Linux, 49,152 elsewhere. */
const [FIRST, COUNT] = [20_000, 12_000];

/** Of this machine, free a moment ago. */
export function freePort(): number {
  for (;;) {
    const port = FIRST + Math.floor(Math.random() * COUNT);
    try {
      Deno.listen({ hostname: "127.0.0.1", port }).close();
      return port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
}
