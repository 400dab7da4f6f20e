#!/bin/sh
# Unpack Microsoft's own T-SQL parser (ScriptDom, from the mssql-cli wheel) and a .NET runtime for it
# into a folder of its own (default .cache/tsql-oracle), for the tests only. Nothing is installed
# into the environment, since mssql-cli's own requirements clash with everything modern. Needs pip
# on Linux x86-64 (as the wheels do). Prints the folder.
set -eu
root=$(cd "$(dirname "$0")/../../.." && pwd)
into=${1:-$root/.cache/tsql-oracle}
if [ -f "$into/complete" ]; then
    echo "$into"
    exit 0
fi
python=${PYTHON:-$root/.venv/bin/python}
rm -rf "$into"
"$python" -m pip install --quiet --no-deps --target "$into" \
    mssql-cli==1.0.0 dotnetcore2==3.1.23 pythonnet==3.2.1 clr_loader==0.3.1 'cffi>=2,<3' \
    'pycparser>=2,<4' >&2
touch "$into/complete"
echo "$into"
