/** Two ends of one loopback connection, for tests of whatever runs over it. */

/** Connects two sockets; the caller closes both. */
export async function tcpPair(): Promise<readonly [Deno.TcpConn, Deno.TcpConn]> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  try {
    const [near, far] = await Promise.all([Deno.connect({ port: listener.addr.port }), listener.accept()]);
    return [near, far];
  } finally {
    listener.close();
  }
}
