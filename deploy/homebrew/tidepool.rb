# For a tap of your own: `npm pack` the package that deploy/npm/build.ts puts together, publish the archive, and fill in its
# address and checksum. Homebrew brings Node; the package brings Deno.
class Tidepool < Formula
  desc "Serve long-context language models from the GPUs people have"
  homepage "https://example.org/tidepool"
  url "https://example.org/tidepool-0.1.0.tgz"
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license "MIT"

  depends_on "node"

  def install
    system "npm", "install", *std_npm_args
    bin.install_symlink libexec.glob("bin/*")
  end

  # `brew services start tidepool`
  service do
    run [opt_bin/"tidepool", "serve"]
    keep_alive true
    log_path var/"log/tidepool.log"
    error_log_path var/"log/tidepool.log"
  end

  test do
    assert_match "tidepool #{version}", shell_output("#{bin}/tidepool --version")
  end
end
