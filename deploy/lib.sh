# Shared by deploy/up, deploy/down, deploy/test and deploy/bench; sourced, never run.
# It finds the cache, installs what the distribution lacks, and builds. It never writes into the checkout.

set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${TRIREME_CACHE:-/var/cache/trireme}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
release=$CARGO_TARGET_DIR/release

# The version of RocksDB that Cargo.lock names, and the CPU that .cargo/config.toml builds for.
rocksdb_version() {
  awk '/^name = "librocksdb-sys"/ { getline; gsub(/"/, "", $3); print $3 }' "$repository/Cargo.lock"
}
rocksdb_stamp() { printf '%s %s' "$(rocksdb_version)" "$(grep -o 'target-cpu=[^"]*' "$repository/.cargo/config.toml")"; }
export ROCKSDB_LIB_DIR=$cache/rocksdb/lib ROCKSDB_STATIC=1

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'; else bold='' dim='' red='' green='' plain=''; fi

say() { printf '%s\n' "$*"; }
die() { printf '%s%s%s\n' "$red" "$*" "$plain" >&2; exit 1; }

# step TEXT COMMAND...: runs the command with its output in a log, shows that it goes on, and says how long it took.
# Where it fails, the end of the log is shown.
step() {
  local text=$1 log started pid seconds
  shift
  mkdir -p "$cache/logs"
  log=$cache/logs/$(printf '%s' "$text" | tr -c 'A-Za-z0-9' '-').log
  started=$SECONDS
  # A function of this file stops at its first failing command, as the script itself would: `if` would switch that off.
  ("$@") >"$log" 2>&1 &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    seconds=$((SECONDS - started))
    if [ -t 1 ]; then
      printf '\r\e[K%s %s%4ds %s%s' "$text" "$dim" "$seconds" "$(tail -c 300 "$log" | tr '\r' '\n' | tail -n 1 | cut -c1-70)" "$plain"
      sleep 0.3
    else
      sleep 0.2
      if [ $((seconds % 60)) -eq 59 ]; then printf '%s: %ds so far\n' "$text" "$seconds"; sleep 1; fi
    fi
  done
  [ -t 1 ] && printf '\r\e[K'
  if wait "$pid"; then
    say "${green}ok${plain}   $text ${dim}($((SECONDS - started)) s)${plain}"
  else
    tail -n 40 "$log" >&2
    die "failed: $text (the whole output is in $log)"
  fi
}

need_root() { [ "$(id -u)" = 0 ] || die "$0 needs root: it makes network namespaces and runs containers. Try: sudo $0"; }

# Installs Debian packages that are absent; asks nothing.
need_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] || step "install ${missing[*]}" install_packages "${missing[@]}"
}
install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get install -y --no-install-recommends "$@" || { apt-get update && apt-get install -y --no-install-recommends "$@"; }
}

build_packages=(build-essential pkg-config clang libclang-dev libseccomp-dev)
run_packages=(iproute2 nftables busybox-static)
# The crate etcd-client, which only tests use, compiles its .proto files with protoc; server-side apply is held against the
# published cases of structured-merge-diff; the dashboard is looked at in Chromium.
test_packages=(docker-registry conntrack curl etcd-server etcd-client libfaketime protobuf-compiler libprotobuf-dev golang-k8s-sigs-structured-merge-diff-dev chromium fonts-dejavu-core)

need_cargo() {
  command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin
  command -v cargo >/dev/null || die "cargo is not on PATH: install a Rust toolchain of at least $(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repository/Cargo.toml") (rustup, or your distribution's)"
}

# RocksDB takes about 20 CPU minutes; its library is built once a machine and version, and linked by every profile.
need_rocksdb() {
  [ "$(cat "$ROCKSDB_LIB_DIR/VERSION" 2>/dev/null)" = "$(rocksdb_stamp)" ] || step "build RocksDB $(rocksdb_version), once a machine (10 to 20 minutes)" build_rocksdb
}
build_rocksdb() {
  local scratch=$cache/rocksdb/build
  cd "$repository"
  env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC cargo build --release --locked -p librocksdb-sys --target-dir "$scratch"
  mkdir -p "$ROCKSDB_LIB_DIR"
  cp "$(find "$scratch/release/build" -path '*librocksdb-sys*' -name librocksdb.a | head -n 1)" "$ROCKSDB_LIB_DIR/librocksdb.a"
  rm -rf "$scratch"
  rocksdb_stamp >"$ROCKSDB_LIB_DIR/VERSION"
}

build_release() {
  cd "$repository"
  cargo build --release --locked
}

build() {
  need_cargo
  need_packages "${build_packages[@]}"
  need_rocksdb
  step "build control, node, shim, ctl and chaos in release" build_release
}
