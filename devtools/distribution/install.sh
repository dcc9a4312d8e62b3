#!/bin/sh
# Installs router-license from this directory alone, without a network: sh install.sh [DIRECTORY]
set -eu

target="${1:-/opt/smart-router-license}"
here="$(cd "$(dirname "$0")" && pwd)"
python="${PYTHON:-python3.11}"
command -v "$python" >/dev/null 2>&1 || python="python3"
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
    echo "install.sh: these wheels are for Python 3.11; name it with PYTHON=/path/to/python3.11" >&2
    exit 1
}
"$python" -m venv "$target"
"$target/bin/python" -m pip --disable-pip-version-check install --quiet --no-index \
    --find-links "$here/wheels" --require-hashes --requirement "$here/requirements.txt"
echo "installed: $target/bin/router-license"
