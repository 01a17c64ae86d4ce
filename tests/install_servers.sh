#!/bin/sh
# Brings the MariaDB server that the tests start by themselves, where Debian's package manager can. It installs the
# bare programs: no service is set up or started. What is there already is left alone.
set -eu
PATH="$PATH:/usr/sbin:/usr/local/sbin"
if command -v mariadbd >/dev/null 2>&1; then
  exit 0
fi
as_root=""
if [ "$(id -u)" -ne 0 ]; then
  as_root="sudo -n"
fi
if ! command -v apt-get >/dev/null 2>&1 || ! $as_root true 2>/dev/null; then
  echo "There is no MariaDB server here, and it cannot be installed by this user. The tests of the MariaDB engine" >&2
  echo "need one: install your system's package (Debian: mariadb-server-core), no service has to run." >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
echo "Installing mariadb-server-core for the tests"
$as_root apt-get install -y -qq --no-install-recommends mariadb-server-core >/dev/null 2>&1 || {
  $as_root apt-get update -qq
  $as_root apt-get install -y -qq --no-install-recommends mariadb-server-core >/dev/null
}
