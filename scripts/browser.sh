#!/usr/bin/env bash
# Installs what the browser tests need: Chromium (CHROME names another), and axe-core, which looks
# for what keeps people out. Quiet; quick when both are there.
set -euo pipefail
cd "$(dirname "$0")/.."

axe=4.10.3
found=""
for name in "${CHROME:-}" chromium chromium-browser google-chrome; do
    if [ -n "$name" ] && command -v "$name" >/dev/null 2>&1; then found=$name; break; fi
done
if [ "$(id -u)" = 0 ]; then sudo=""; else sudo=sudo; fi
apt() { # PACKAGE...
    echo "installing $*"
    $sudo apt-get install -y -qq "$@" >/dev/null 2>&1 \
        || { $sudo apt-get update -qq && $sudo apt-get install -y -qq "$@" >/dev/null; }
}
[ -n "$found" ] || apt chromium
place=target/browser/axe-core-$axe
if [ ! -s "$place/axe.min.js" ]; then
    command -v npm >/dev/null 2>&1 || apt npm
    echo "installing axe-core $axe"
    mkdir -p target/browser
    part=$(mktemp -d target/browser/part.XXXXXX)
    trap 'rm -rf "$part"' EXIT
    (cd "$part" && npm pack --silent "axe-core@$axe" >/dev/null && tar -xzf axe-core-*.tgz)
    rm -rf "$place"
    mv "$part/package" "$place"
fi
