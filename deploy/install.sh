#!/usr/bin/env bash
# Makes this Debian machine a master or a node of a Trireme cluster.
#
#   install.sh master --init --address IP                 the first master of a new cluster
#   install.sh master --join URL --token-file FILE --address IP
#   install.sh node --server URL[,URL] --token-file FILE --address IP
#   install.sh uninstall [--purge]                        stops and removes; --purge takes the data too
#
#   --name NAME       the name in the cluster; default: the host's
#   --bin DIR         where the programs are; default: beside this script, else the release build of this checkout
#   --dry-run         only say what would be done
#   --root DIR        install below DIR and start nothing; for images and tests
#   --no-start        install, but start nothing
#
# The first master keeps its join token in /var/lib/trireme/control/join-token: copy that file to the other machines.
# Run it again at any time: what is as it should be is left alone.
set -euo pipefail

role=${1:-}
[ $# -gt 0 ] && shift
init='' join='' server='' token_file='' address='' name='' bin='' dry_run='' root='' start=yes purge=''

usage() { sed -n '2,17s/^# \{0,1\}//p' "$0"; }
die() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }

while [ $# -gt 0 ]; do
  case "$1" in
    --init) init=yes ;;
    --dry-run) dry_run=yes ;;
    --no-start) start='' ;;
    --purge) purge=yes ;;
    --join | --server | --token-file | --address | --name | --bin | --root)
      [ $# -ge 2 ] || die "$1 needs a value"
      variable=${1#--}
      printf -v "${variable//-/_}" '%s' "$2"
      shift
      ;;
    -h | --help) usage; exit ;;
    *) die "$1 is not known; --help tells what is" ;;
  esac
  shift
done
[ -z "$root" ] || start=''

# do_it TEXT COMMAND...: says what is done, and does it unless --dry-run.
do_it() {
  printf '%s%s\n' "${dry_run:+would }" "$1"
  shift
  [ -n "$dry_run" ] || "$@"
}

find_programs() {
  local here
  here=$(cd "$(dirname "$0")" && pwd)
  for folder in "$bin" "$here" "${CARGO_TARGET_DIR:-/var/cache/trireme/target}/release" "$here/../target/release"; do
    if [ -n "$folder" ] && [ -x "$folder/control" ] && [ -x "$folder/node" ]; then
      bin=$folder
      return
    fi
    [ -z "$bin" ] || die "there are no programs control and node in $bin"
  done
  die "the programs are not found: build them with deploy/up or cargo build --release, or say --bin DIR"
}

need_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] || do_it "install the packages ${missing[*]}" apt-get install -y --no-install-recommends "${missing[@]}"
}

install_program() {
  local target=$root/usr/local/bin/$1
  cmp -s "$bin/$1" "$target" && return
  do_it "install $target" replace_program "$bin/$1" "$target"
}
replace_program() {
  # By rename: the old program may be running.
  install -D -m 755 "$1" "$2.new"
  mv "$2.new" "$2"
}

# put FILE MODE TEXT: writes the file where it differs.
put() {
  local file=$root$1
  [ "$(cat "$file" 2>/dev/null)" = "$3" ] && return
  do_it "write $file" put_now "$file" "$2" "$3"
}
put_now() {
  mkdir -p "$(dirname "$1")"
  (umask 077 && printf '%s\n' "$3" >"$1.new")
  chmod "$2" "$1.new"
  mv "$1.new" "$1"
}

install_unit() {
  local unit=trireme-$1.service source
  source=$(dirname "$0")/systemd/$unit
  [ -r "$source" ] || die "$source is missing: copy the folder systemd/ beside this script"
  put "/etc/systemd/system/$unit" 644 "$(cat "$source")"
}

start_unit() {
  local unit=trireme-$1.service
  if [ -z "$start" ]; then
    printf 'start it with: %s/usr/local/bin/%s run %s\n' "$root" "$1" "$2"
    return
  fi
  [ -d /run/systemd/system ] || [ -n "$dry_run" ] || die "systemd does not run here; use --no-start and start the program yourself"
  do_it "enable and start $unit" enable_and_start "$unit"
}
enable_and_start() {
  systemctl daemon-reload
  systemctl enable --quiet "$1"
  systemctl restart "$1"
}

# Keeps the token where only root reads it.
keep_token() {
  [ -n "$token_file" ] || die "--token-file FILE is needed: a master keeps one in /var/lib/trireme/control/join-token"
  [ -r "$token_file" ] || die "cannot read the token file $token_file"
  put /etc/trireme/token 600 "$(cat "$token_file")"
}

common() {
  [ -n "$address" ] || die "--address IP is needed: the address at which the other machines reach this one"
  [[ $address =~ ^[0-9a-fA-F.:]+$ ]] || die "--address $address is no IP address"
  if [ -n "$name" ]; then name_args="--name $name"; else name_args=''; fi
  find_programs
}

install_master() {
  common
  local how
  if [ -n "$init" ] && [ -n "$join" ]; then die "say either --init or --join, not both"; fi
  if [ -n "$init" ]; then
    how=--init
  elif [ -n "$join" ]; then
    keep_token
    how="--join $join --token-file $root/etc/trireme/token"
  else
    die "say --init for a new cluster, or --join URL --token-file FILE"
  fi
  install_program control
  install_program ctl
  local args="--data-dir $root/var/lib/trireme/control --address $address ${name_args:+$name_args }$how"
  put /etc/trireme/control.env 600 "CONTROL_ARGS=$args"
  install_unit control
  start_unit control "$args"
  if [ -n "$init" ]; then
    printf 'the join token for the other machines: %s/var/lib/trireme/control/join-token\n' "$root"
    printf 'the kubeconfig: %s/var/lib/trireme/control/admin.kubeconfig\n' "$root"
  fi
}

install_node() {
  common
  [ -n "$server" ] || die "--server URL[,URL] is needed: the masters' API, as https://10.0.0.1:6443"
  keep_token
  [ -n "$root" ] || need_packages nftables libseccomp2
  install_program node
  install_program shim
  local args="--data-dir $root/var/lib/trireme/node --address $address ${name_args:+$name_args }--server $server --token-file $root/etc/trireme/token"
  put /etc/trireme/node.env 600 "NODE_ARGS=$args"
  install_unit node
  start_unit node "$args"
}

uninstall() {
  local unit
  for unit in trireme-node.service trireme-control.service; do
    [ -e "$root/etc/systemd/system/$unit" ] || continue
    if [ -n "$start" ]; then do_it "stop and disable $unit" systemctl disable --now "$unit"; fi
    if [ "$unit" = trireme-node.service ] && [ -d "$root/var/lib/trireme/node" ]; then
      do_it "end the pods of this node" "$root/usr/local/bin/node" cleanup --data-dir "$root/var/lib/trireme/node"
    fi
    do_it "remove $root/etc/systemd/system/$unit" rm -f "$root/etc/systemd/system/$unit"
  done
  do_it "remove the programs and $root/etc/trireme" rm -rf "$root"/usr/local/bin/{control,ctl,node,shim} "$root/etc/trireme"
  if [ -n "$purge" ]; then
    do_it "remove $root/var/lib/trireme with all data" rm -rf "$root/var/lib/trireme"
  elif [ -d "$root/var/lib/trireme" ]; then
    printf 'the data stays in %s/var/lib/trireme; --purge removes it\n' "$root"
  fi
}

case "$role" in
  master | node | uninstall) [ "$(id -u)" = 0 ] || [ -n "$dry_run" ] || die "this needs root; try: sudo $0 $role ..." ;;
esac
case "$role" in
  master) install_master ;;
  node) install_node ;;
  uninstall) uninstall ;;
  -h | --help | help) usage ;;
  '') usage; exit 2 ;;
  *) die "the first word is master, node or uninstall; --help tells more" ;;
esac
