#!/bin/sh
# Installs Rotel from PyPI into a virtual environment under target/ and prints where its program is and what it
# calls itself. The wheel holds a ready binary. ROTEL_VERSION chooses another release.
set -eu
version=${ROTEL_VERSION:-0.0.1a15}
root=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
venv=${CARGO_TARGET_DIR:-$root/target}/rod/rotel-$version
if [ ! -x "$venv/bin/rotel-agent" ]; then
    python3 -m venv "$venv" >&2
    "$venv/bin/pip" install --quiet --disable-pip-version-check "rotel==$version" >&2
    agent=$("$venv/bin/python" -c 'import pathlib, rotel; print(pathlib.Path(rotel.__file__).parent / "rotel-agent")')
    ln -sf "$agent" "$venv/bin/rotel-agent"
fi
"$venv/bin/rotel-agent" --version >&2
echo "$venv/bin/rotel-agent"
