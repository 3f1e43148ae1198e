#!/bin/sh
# Installs the Debian packages listed in the given files, if any is missing: deps.sh FILE...
# Does nothing, and takes no time, when all of them are there. Needs root or sudo only to install. With DEPS=check it
# installs nothing, and names what is missing.
set -eu

packages=$(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$@")

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "deps: not a Debian system; these packages (or what they are called here) are needed:" >&2
    echo "$packages" >&2
    exit 0
fi

# shellcheck disable=SC2086
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $packages 2>/dev/null | sed -n 's/^installed //p')
missing=
for package in $packages; do
    echo "$installed" | grep -qxF "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "${DEPS:-install}" = check ]; then
    echo "deps: missing; install with: apt-get install$missing" >&2
    exit 1
fi

sudo=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "deps: missing:$missing" >&2
        echo "deps: neither root nor sudo; install them and try again" >&2
        exit 1
    fi
    sudo=sudo
fi

echo "deps: ${sudo:+sudo }apt-get install$missing (DEPS=check: only name what is missing)"
export DEBIAN_FRONTEND=noninteractive
install_missing() {
    # shellcheck disable=SC2086
    $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
}
# The package lists may be absent or too old to find the files they name.
if [ -z "$(find /var/lib/apt/lists -name '*_Packages*' -print -quit 2>/dev/null)" ]; then
    $sudo apt-get update -qq
    install_missing
else
    install_missing 2>/dev/null || { $sudo apt-get update -qq && install_missing; }
fi
