#!/usr/bin/env bash
# Make sure there is a Chromium in PATH. Does nothing when there is one; installs Debian's package when
# that is possible without asking anybody; otherwise says what to do. Never fails: the tests that
# need the browser do, with the same advice.
set -u

for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done

as_root=()
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        as_root=(sudo -n)
    else
        echo "No Chromium found. Install one for the page's tests, e.g.: sudo apt-get install chromium" >&2
        exit 0
    fi
fi

if ! command -v apt-get >/dev/null 2>&1; then
    echo "No Chromium found. Install Chromium or Chrome for the page's tests." >&2
    exit 0
fi

echo "Installing Chromium for the page's tests (Debian's package) ..."
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! { "${as_root[@]}" apt-get update && "${as_root[@]}" apt-get install -y --no-install-recommends \
        chromium fonts-dejavu-core; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    echo "Chromium could not be installed; the page's tests will say so." >&2
fi
rm -f "$log"
exit 0
