#!/bin/sh
# Put the S3 server ministack into a virtual environment of its own (it pins botocore, so it cannot
# share ours). Does nothing when it is there already.
# Usage: tests/vault/install_ministack.sh [DIRECTORY]; PYTHON names the interpreter to use.
set -eu

version=1.5.33
checkout=$(cd "$(dirname "$0")/../.." && pwd)
directory=${1:-$checkout/.cache/ministack}

if [ -x "$directory/bin/ministack" ] && [ "$(cat "$directory/version" 2>/dev/null)" = "$version" ]; then
    exit 0
fi
"${PYTHON:-python3}" -m venv --clear "$directory"
"$directory/bin/python" -m pip install --quiet --disable-pip-version-check "ministack==$version"
printf '%s\n' "$version" >"$directory/version"
