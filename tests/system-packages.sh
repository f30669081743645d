#!/usr/bin/env bash
# What the tests need of the system beside .venv. As root on Debian (or the like) this installs what
# is missing; else it says which command does, and which tests will not run without.
#
#   tests/system-packages.sh PYTHON
#
# With CLOTLINE_NO_SKIP=1, where a skipped test is a failed one, it fails if something is missing.
set -uo pipefail
python=$1

packages=() tests=()

# lack PACKAGES TESTS: notes what is missing.
lack() {
    packages+=($1)
    tests+=("$2")
}

look() {
    packages=() tests=()
    if ! type -P chromium >/dev/null && ! type -P chromium-browser >/dev/null; then
        lack "chromium fonts-dejavu-core" "the report and the viewer in a browser (Chromium)"
    fi
    local compiler=
    type -P g++ >/dev/null || compiler+="g++ "
    local include version
    include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    [ -e "$include/Python.h" ] || compiler+="python$version-dev"
    if [ -n "$compiler" ]; then
        lack "$compiler" "torch.compile (g++ and Python's headers)"
    fi
    if ! type -P dciodvfy >/dev/null; then
        lack "dicom3tools" "DICOM results by an independent validator (dciodvfy)"
    fi
    if ! type -P localedef >/dev/null || [ ! -e /usr/share/i18n/charmaps/ISO-8859-1.gz ]; then
        lack "locales" "locales whose encoding is not UTF-8"
    fi
}

look
[ ${#packages[@]} = 0 ] && [ "$(id -u)" = 0 ] && exit

if [ ${#packages[@]} != 0 ] && [ "$(id -u)" = 0 ] && type -P apt-get >/dev/null; then
    echo "Installing for the tests: ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # Another apt-get may be at work, as on a machine that has just started.
    wait_for_lock=(-o DPkg::Lock::Timeout=600)
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${wait_for_lock[@]}" "${packages[@]}" >/dev/null
    look
fi

[ "$(id -u)" = 0 ] || tests+=("full disks (only root can mount a small one)")
if [ ${#tests[@]} != 0 ]; then
    echo "Tests that will be skipped on this machine:"
    printf '  %s\n' "${tests[@]}"
fi
if [ ${#packages[@]} != 0 ]; then
    echo "To have what is missing:"
    echo "  sudo apt-get install -y --no-install-recommends ${packages[*]}"
fi
[ ${#tests[@]} = 0 ] || [ -z "${CLOTLINE_NO_SKIP:-}" ]
