# The local cluster of deploy/up: three masters and two nodes, each in a network namespace of its own. Sourced after lib.sh.
# A second cluster beside it has a folder, a network and a prefix for the names of namespaces and links (at most 10 letters) of
# its own, and other node names, since a node's cgroups are named after it.

home=${TRIREME_HOME:-/var/lib/trireme/local}
prefix=${TRIREME_PREFIX:-trireme}
link_prefix=${TRIREME_PREFIX:-tri}
bridge=$prefix-up
network=${TRIREME_NETWORK:-10.89.0} # Only this machine sees it.
host_address=$network.254
masters=(m1 m2 m3)
nodes=(n1 n2)
declare -A address=([m1]=$network.11 [m2]=$network.12 [m3]=$network.13 [n1]=$network.21 [n2]=$network.22)
api_url=https://${address[m1]}:6443
master_urls=$(printf 'https://%s:6443,' "${address[m1]}" "${address[m2]}" "${address[m3]}")
master_urls=${master_urls%,}
kubeconfig=$home/kubeconfig
image=trireme.local/busybox:1

netns() { printf '%s-%s' "$prefix" "$1"; }

# in_netns NAME COMMAND...: unlike `ip netns exec` it leaves /sys as it is, where the cgroups are mounted.
in_netns() {
  local name=$1
  shift
  nsenter --net="/run/netns/$(netns "$name")" "$@"
}

make_network() {
  if ! ip link show "$bridge" >/dev/null 2>&1; then
    ip link add "$bridge" type bridge
    ip address add "$host_address/24" dev "$bridge"
    ip link set "$bridge" up
  fi
  local name ns
  for name in "${masters[@]}" "${nodes[@]}"; do
    ns=$(netns "$name")
    [ -e "/run/netns/$ns" ] && continue
    ip netns add "$ns"
    ip link add "$link_prefix-$name" type veth peer name eth0 netns "$ns"
    ip link set "$link_prefix-$name" master "$bridge" up
    ip -n "$ns" address add "${address[$name]}/24" dev eth0
    ip -n "$ns" link set lo up
    ip -n "$ns" link set eth0 up
    ip -n "$ns" route add default via "$host_address"
  done
}

remove_network() {
  local name
  for name in "${masters[@]}" "${nodes[@]}"; do
    ip netns delete "$(netns "$name")" 2>/dev/null || true
  done
  ip link delete "$bridge" 2>/dev/null || true
}

# A process of ours that still runs: its id is in the file, and its executable is the one that we started.
alive() {
  local file=$home/run/$1.pid pid
  [ -s "$file" ] || return 1
  pid=$(<"$file")
  [ -d "/proc/$pid" ] && [[ $(readlink "/proc/$pid/exe") == "$home"/bin/* ]]
}

# start NAME COMMAND...: in the namespace NAME, detached, output in a log.
start() {
  local name=$1
  shift
  alive "$name" && return
  mkdir -p "$home/run" "$home/log"
  setsid nsenter --net="/run/netns/$(netns "$name")" "$@" >>"$home/log/$name.log" 2>&1 </dev/null &
  echo $! >"$home/run/$name.pid"
}

stop() {
  local name=$1 pid
  alive "$name" || { rm -f "$home/run/$name.pid"; return 0; }
  pid=$(<"$home/run/$name.pid")
  kill -TERM "$pid"
  for _ in $(seq 100); do
    [ -d "/proc/$pid" ] || break
    sleep 0.1
  done
  [ -d "/proc/$pid" ] && kill -KILL "$pid"
  rm -f "$home/run/$name.pid"
}

start_master() {
  local name=$1 how=()
  if [ "$name" = "${masters[0]}" ]; then how=(--init); else how=(--join "$api_url" --token-file "$home/token"); fi
  start "$name" "$home/bin/control" run --data-dir "$home/$name" --name "$name" --address "${address[$name]}" "${how[@]}"
}

start_node() {
  local name=$1
  start "$name" "$home/bin/node" run --data-dir "$home/$name" --name "$name" --address "${address[$name]}" \
    --server "$master_urls" --token-file "$home/token"
}

# wait_for SECONDS TEXT COMMAND...: until the command succeeds.
wait_for() {
  local seconds=$1 text=$2 until
  shift 2
  until=$((SECONDS + seconds))
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $until ]; then
      echo "$text did not come within $seconds s; the last answer was:"
      "$@" || true
      tail -n 5 "$home"/log/*.log
      return 1
    fi
    sleep 0.1
  done
}

install_binaries() {
  mkdir -p "$home/bin"
  local name
  for name in control node shim ctl; do
    cmp -s "$release/$name" "$home/bin/$name" && continue
    # By rename: the old file may be running.
    install -m 755 "$release/$name" "$home/bin/$name.new"
    mv "$home/bin/$name.new" "$home/bin/$name"
  done
}

ctl() { "$home/bin/ctl" --kubeconfig "$kubeconfig" "$@"; }

start_masters() {
  start_master m1
  wait_for 30 "the join token" test -s "$home/m1/join-token"
  install -m 600 "$home/m1/join-token" "$home/token"
  start_master m2
  start_master m3
  install -m 600 "$home/m1/admin.kubeconfig" "$kubeconfig"
  wait_for 60 "three voting masters" three_voters
  # By now it names all three.
  wait_for 10 "a kubeconfig with all masters" grep -q "${address[m3]}" "$home/m1/admin.kubeconfig"
  install -m 600 "$home/m1/admin.kubeconfig" "$kubeconfig"
}
three_voters() { [ "$(ctl member list -o json | grep -c '"voter": *true')" = 3 ]; }

start_nodes() {
  local name
  for name in "${nodes[@]}"; do start_node "$name"; done
  wait_for 60 "the nodes" ctl get nodes "${nodes[@]}"
  ctl wait nodes --all --for condition=Ready --timeout 60s
}

import_image() {
  [ -s "$home/busybox.tar" ] || "$repository/deploy/make-image" "$home/busybox.tar" "$image"
  ctl image import "$home/busybox.tar"
}

remove_nodes() {
  local name
  for name in "${nodes[@]}"; do
    stop "$name"
    # Its pods outlive an agent; this ends them and gives back their mounts, cgroups and links.
    if [ -d "$home/$name" ] && [ -e "/run/netns/$(netns "$name")" ]; then
      in_netns "$name" "$home/bin/node" cleanup --data-dir "$home/$name"
    fi
  done
}

remove_masters() {
  local name
  for name in "${masters[@]}"; do stop "$name"; done
}
