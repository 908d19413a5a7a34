#!/usr/bin/env bash
# Runs the tests of remotes against other S3 servers than the usual one, which is lenient: s3s-fs
# checks signatures, Garage also checks the digest of what it is sent and ignores conditions.
#
#   scripts/remote-check.sh            every server that is installed
#   scripts/remote-check.sh s3s        this one
#   scripts/remote-check.sh install s3s|garage   builds it with cargo (2 and 15 minutes)
#
# Servers listen on 127.0.0.1, keep their data in a folder that is removed, and end with the script.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=${S3_SERVERS:-$PWD/target/s3-servers}

if [ "${1:-}" = install ]; then
    case "${2:-}" in
        s3s) cargo install s3s-fs --version 0.14.1 --features binary --root "$tools" ;;
        garage) cargo install garage --version 2.5.0 --locked --root "$tools" ;;
        *) echo "install s3s or garage" >&2; exit 2 ;;
    esac
    exit 0
fi

work=$(mktemp -d)
server=""
end() { # the server, by its id, and its data
    if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
    server=""
}
trap 'end; rm -rf "$work"' EXIT

random() { od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
wait_for() { # PORT
    for _ in $(seq 100); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return 0; fi
        sleep 0.1
    done
    echo "nothing listens on port $1" >&2
    exit 1
}

start_s3s() {
    AWS_ACCESS_KEY_ID=AK$(random 8) AWS_SECRET_ACCESS_KEY=$(random 20) AWS_REGION=us-east-1
    mkdir -p "$work/s3s/preflow"
    "$tools/bin/s3s-fs" --host 127.0.0.1 --port "$port" --access-key "$AWS_ACCESS_KEY_ID" \
        --secret-key "$AWS_SECRET_ACCESS_KEY" "$work/s3s" >"$work/s3s.log" 2>&1 &
    server=$!
    wait_for "$port"
}

start_garage() {
    local conf=$work/garage.toml rpc admin
    rpc=$(free_port) admin=$(free_port)
    (umask 077; cat >"$conf" <<CONF
metadata_dir = "$work/garage/meta"
data_dir = "$work/garage/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:$rpc"
rpc_public_addr = "127.0.0.1:$rpc"
rpc_secret = "$(random 32)"
[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:$port"
root_domain = ".s3.localhost"
[admin]
api_bind_addr = "127.0.0.1:$admin"
CONF
    )
    "$tools/bin/garage" -c "$conf" server >"$work/garage.log" 2>&1 &
    server=$!
    wait_for "$port"
    local say=("$tools/bin/garage" -c "$conf")
    "${say[@]}" layout assign -z here -c 10G "$("${say[@]}" node id -q | cut -d@ -f1)" >/dev/null
    "${say[@]}" layout apply --version 1 >/dev/null
    "${say[@]}" bucket create preflow >/dev/null
    "${say[@]}" key create preflow >/dev/null
    "${say[@]}" bucket allow --read --write --owner preflow --key preflow >/dev/null
    local key
    key=$("${say[@]}" key info --show-secret preflow)
    AWS_ACCESS_KEY_ID=$(awk '/Key ID/ { print $3 }' <<<"$key")
    AWS_SECRET_ACCESS_KEY=$(awk '/Secret key/ { print $3 }' <<<"$key")
    AWS_REGION=garage
}

status=0 tried=0
for kind in ${1:-s3s garage}; do
    program=$tools/bin/$([ "$kind" = s3s ] && echo s3s-fs || echo garage)
    if [ ! -x "$program" ]; then
        echo "$kind is not installed: scripts/remote-check.sh install $kind"
        continue
    fi
    tried=$((tried + 1))
    port=$(free_port)
    "start_$kind"
    export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_REGION
    echo "against $kind"
    PREFLOW_TEST_S3=http://127.0.0.1:$port PREFLOW_TEST_BUCKET=preflow \
        cargo test -p preflow --locked --test remote || status=$?
    end
done
[ "$tried" -gt 0 ] || { echo "no server was tried" >&2; exit 1; }
exit "$status"
