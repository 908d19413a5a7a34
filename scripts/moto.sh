#!/usr/bin/env bash
# Installs the S3 server that the tests of remotes talk to: moto, in an environment of its own.
# Quick when it is there. It listens on 127.0.0.1 only, and only while a test runs.
set -euo pipefail
cd "$(dirname "$0")/.."

version=5.2.1
place=target/moto-venv
[ "$(cat "$place/version" 2>/dev/null || true)" = "$version" ] && exit 0

if [ "$(id -u)" = 0 ]; then sudo=""; else sudo=sudo; fi
command -v python3 >/dev/null 2>&1 && python3 -c 'import venv, ensurepip' 2>/dev/null || {
    echo "installing python3-venv"
    $sudo apt-get install -y -qq python3-venv >/dev/null 2>&1 \
        || { $sudo apt-get update -qq && $sudo apt-get install -y -qq python3-venv >/dev/null; }
}
echo "installing moto $version"
rm -rf "$place"
mkdir -p target
python3 -m venv "$place"
"$place/bin/pip" install --quiet --disable-pip-version-check "moto[server]==$version"
echo "$version" > "$place/version"
