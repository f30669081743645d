# What start-gridengine.sh and start-slurm.sh share; they source it with the cluster's name.

name=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { echo "$name: $*"; }

# wait_for SECONDS COMMAND...: gives up with the command's own last words.
wait_for() {
    local left=$1 words
    shift
    until words=$("$@" 2>&1 </dev/null); do
        ((left-- > 0)) || { say "gave up waiting for: $*${words:+: $words}"; return 1; }
        sleep 1
    done
}

# install PACKAGE...: daemons that come with them are not started, for they have no configuration yet.
install() {
    local policy=/usr/sbin/policy-rc.d made=
    say "installing"
    [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; made=yes; }
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y --no-install-recommends "$@" >/dev/null
    [ -z "$made" ] || rm $policy
}

if [ "$(id -u)" != 0 ]; then
    say "needs root to install and start daemons"
    exit 1
fi
