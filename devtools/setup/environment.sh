#!/bin/sh
# Creates the virtual environment from the locked requirements and installs the project into it.
set -eu

missing=""
[ -n "${PYTHON:-}" ] && "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    missing="python3.11"
[ -n "$missing" ] || "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || missing="python3-venv"
if [ -n "$missing" ]; then
    echo "make setup: $missing is missing. On Debian: apt-get install python3 python3-venv" >&2
    exit 1
fi

if ! "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
    rm -rf "$VENV"
    "$PYTHON" -m venv "$VENV"
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1
echo "make setup: installing into $VENV"
"$VENV/bin/python" -m pip install --quiet --require-hashes -r requirements.txt -r requirements-dev.txt
"$VENV/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable . \
    --config-settings editable_mode=compat
