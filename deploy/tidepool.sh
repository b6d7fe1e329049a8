#!/bin/sh
# Runs Tidepool with the permissions that a command needs and no others. The entry point of the image, and of the
# systemd units; the first argument is the command.
set -eu
cd "$(dirname "$0")/.."
deno="${TIDEPOOL_DENO:-deno}"
# Deno shows /proc, /sys and /dev to no process without all permissions: descriptors and GPUs are read through ls and cat.
# NATS asks for the host's name. Dawn is native code, and lies among Deno's npm packages. A worker keeps one file: which
# tiles were fastest on its GPU.
common="--quiet --no-prompt --allow-net --allow-read --allow-env --allow-sys=uid,systemMemoryInfo,hostname"
case "${1:-}" in
  serve) allowed="$common --allow-run=$(command -v "$deno"),ls,cat,unshare,/usr/bin/nvidia-smi,/usr/lib/wsl/lib/nvidia-smi,/usr/bin/apt-get,/sbin/ldconfig" ;;
  worker) allowed="$common --allow-run=ls,cat,/usr/bin/apt-get,/sbin/ldconfig --allow-ffi=${DENO_DIR:-$HOME/.cache/deno}/npm"
    allowed="$allowed --allow-write=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/tidepool-tiles.json" ;;
  # What people run by hand: it writes files and starts browsers, benchmarks and editors.
  *) allowed="--quiet -A" ;;
esac
# shellcheck disable=SC2086 # a list of flags
exec "$deno" run $allowed mod.ts "$@"
