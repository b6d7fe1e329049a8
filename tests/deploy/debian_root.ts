/**
 * A fresh Debian root in a folder, from the archive that this machine's own packages come from. Needs root and `debootstrap`.
 * Brings along how this machine reaches its registries; what is done in the root is for others.
 */

import assert from "node:assert/strict";

/** The release that deploy/Dockerfile starts from. */
const RELEASE = "trixie";
/** Certificates that this machine believes beside the usual ones, inside the root. */
const OWN_ISSUERS = "/own-issuers.pem";
const NETWORK_FILES = ["/etc/resolv.conf", "/etc/hosts", "/etc/npmrc", "/root/.npmrc"];
const REGISTRY_VARIABLES = ["NPM_CONFIG_REGISTRY", "npm_config_registry", "https_proxy", "HTTPS_PROXY"];

/** Runs a program to its end. @throws {AssertionError} with what it said last when it failed */
export async function runProgram(program: string, args: readonly string[], cwd?: string): Promise<string> {
  const options = cwd === undefined ? {} : { cwd };
  const { success, stdout, stderr } = await new Deno.Command(program, { args: [...args], ...options }).output();
  const printed = new TextDecoder().decode(stdout);
  const said = printed + new TextDecoder().decode(stderr);
  assert.ok(success, `${program} ${args.join(" ")}:\n${said.slice(-4000)}`);
  return printed;
}

/** See the top of this file; for `await using` */
export class DebianRoot implements AsyncDisposable {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  static async make(): Promise<DebianRoot> {
    const root = new DebianRoot(await Deno.makeTempDir());
    try {
      await root.#fill();
    } catch (error) {
      await root[Symbol.asyncDispose]();
      throw error;
    }
    return root;
  }

  /** How this machine reaches its registries, for programs in the root. */
  get registry(): Readonly<Record<string, string>> {
    const set = REGISTRY_VARIABLES.flatMap((name) => {
      const value = Deno.env.get(name);
      return value === undefined ? [] : [[name, value] as const];
    });
    const issuers = Deno.env.has("SSL_CERT_FILE") ? { DENO_CERT: OWN_ISSUERS, "npm_config_cafile": OWN_ISSUERS } : {};
    return { ...Object.fromEntries(set), ...issuers };
  }

  /** Copies the files of a folder that Git knows. */
  async copyCheckout(from: string, to: string): Promise<void> {
    await Deno.mkdir(this.path + to, { recursive: true });
    const copy = 'git ls-files -z | tar --create --null --files-from=- | tar --extract --directory="$0"';
    await runProgram("sh", ["-c", copy, this.path + to], from);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await runProgram("rm", ["-rf", "--one-file-system", this.path]);
  }

  async #fill(): Promise<void> {
    await runProgram("debootstrap", ["--variant=minbase", RELEASE, this.path, ...await archive()]);
    // A folder for temporary files is its maker's alone; this one is the root of other users too.
    await Deno.chmod(this.path, 0o755);
    for (const file of NETWORK_FILES) {
      await Deno.copyFile(file, this.path + file).catch((error) =>
        assert.ok(error instanceof Deno.errors.NotFound, error)
      );
    }
    const issuers = Deno.env.get("SSL_CERT_FILE");
    if (issuers !== undefined) await Deno.copyFile(issuers, this.path + OWN_ISSUERS);
  }
}

/** Where this machine's packages of the release come from; empty on another system, where debootstrap knows. */
async function archive(): Promise<readonly string[]> {
  const format = ["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"];
  const lines = (await runProgram("apt-get", format)).split("\n").map((line) => line.split(" "));
  const [uri] = lines.find(([, release]) => release === RELEASE) ?? [];
  return uri === undefined ? [] : [uri];
}
