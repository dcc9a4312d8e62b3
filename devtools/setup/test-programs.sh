#!/bin/sh
# Installs the programs tests need (PostgreSQL, Chromium, curl, SoftHSM2) if they are missing and that is
# permitted; otherwise says what to install.
set -eu

missing=""
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="postgresql"
[ -x /usr/bin/chromium ] || missing="$missing chromium"
command -v curl >/dev/null || missing="$missing curl"
command -v softhsm2-util >/dev/null || missing="$missing softhsm2"
[ -n "$missing" ] || exit 0

as_root=""
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root="sudo -n"
    else
        echo "make test: please install$missing first: apt-get install --no-install-recommends $missing" >&2
        exit 1
    fi
fi
echo "make test: installing $missing"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq
# The tests start servers of their own, so Debian's cluster is not needed.
if [ -n "$as_root" ] || [ "$(id -u)" = 0 ]; then
    $as_root sh -c 'mkdir -p /etc/postgresql-common && [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf'
fi
# shellcheck disable=SC2086
$as_root apt-get install -y -qq --no-install-recommends $missing
