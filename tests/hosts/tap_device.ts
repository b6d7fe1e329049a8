/**
 * A virtual network card (TAP) whose cable ends in this process: what the kernel sends through it is read here, what is
 * written here it receives. Linux on 64-bit machines; needs root and /dev/net/tun.
 */

const DEVICE = "/dev/net/tun";
const [O_RDWR, O_NONBLOCK] = [2, 0o4000];
const TUNSETIFF = 0x400454ca;
const [IFF_TAP, IFF_NO_PI] = [0x0002, 0x1000];
const IFREQ_BYTES = 40;
const IFNAMSIZ = 16;
const [EINTR, EIO, EAGAIN] = [4, 5, 11];
const POLLIN = 1;
const POLLFD_BYTES = 8;
/** Of every machine that Deno runs on. */
const LITTLE_ENDIAN = true;
/** The longest frame: the cards have no larger MTU. */
const FRAME_BYTES = 2048;

const libc = Deno.dlopen("libc.so.6", {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },
  __errno_location: { parameters: [], result: "pointer" },
}).symbols;

function errno(): number {
  const at = libc.__errno_location();
  return at === null ? 0 : new Deno.UnsafePointerView(at).getInt32();
}

/** Exists as long as the process does; whatever namespace its card is moved to, its cable ends here. */
export class TapDevice {
  readonly fd: number;
  readonly #frame = new Uint8Array(FRAME_BYTES);

  /** @param name of the card, at most 15 characters */
  constructor(name: string) {
    this.fd = libc.open(new TextEncoder().encode(`${DEVICE}\0`), O_RDWR | O_NONBLOCK);
    if (this.fd < 0) throw new Error(`Cannot open ${DEVICE}: error ${errno()}`);
    const request = new Uint8Array(IFREQ_BYTES);
    request.set(new TextEncoder().encode(name).subarray(0, IFNAMSIZ - 1));
    new DataView(request.buffer).setUint16(IFNAMSIZ, IFF_TAP | IFF_NO_PI, LITTLE_ENDIAN);
    if (libc.ioctl(this.fd, BigInt(TUNSETIFF), request) < 0) {
      throw new Error(`Cannot make card ${name}: error ${errno()}`);
    }
  }

  /** The next frame; undefined when none waits, or the card is not up. */
  read(): Uint8Array<ArrayBuffer> | undefined {
    const bytes = Number(libc.read(this.fd, this.#frame, BigInt(FRAME_BYTES)));
    if (bytes >= 0) return this.#frame.slice(0, bytes);
    const error = errno();
    if (error === EAGAIN || error === EIO) return undefined;
    throw new Error(`Cannot read from a card: error ${error}`);
  }

  /** Hands the kernel a frame; it drops what a card that is not up receives. */
  write(frame: Uint8Array<ArrayBuffer>): void {
    if (Number(libc.write(this.fd, frame, BigInt(frame.length))) >= 0) return;
    const error = errno();
    if (error !== EAGAIN && error !== EIO) throw new Error(`Cannot write to a card: error ${error}`);
  }
}

/** Blocks the thread until one of the cards has a frame, or the time is over. @param timeoutMs rounded up */
export function waitForFrames(taps: readonly TapDevice[], timeoutMs: number): void {
  const list = new DataView(new ArrayBuffer(taps.length * POLLFD_BYTES));
  taps.forEach(({ fd }, i) => {
    list.setInt32(i * POLLFD_BYTES, fd, LITTLE_ENDIAN);
    list.setInt16(i * POLLFD_BYTES + 4, POLLIN, LITTLE_ENDIAN);
  });
  const found = libc.poll(new Uint8Array(list.buffer), BigInt(taps.length), Math.ceil(timeoutMs));
  if (found < 0 && errno() !== EINTR) throw new Error(`Cannot wait for frames: error ${errno()}`);
}
