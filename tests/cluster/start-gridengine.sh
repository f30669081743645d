#!/bin/bash
# Installs, configures and starts a Grid Engine of one machine (Debian, as root), for the tests.
#
#   tests/cluster/start-gridengine.sh          once or again: what is there already stays
#
# Two queues: cpu.q with two slots, and gpu.q, which holds the cluster's one GPU and takes nothing
# but jobs that ask for it. The GPU is a number in Grid Engine's books; no card is needed.
set -euo pipefail
. "$(dirname "$0")/cluster.sh" gridengine

export SGE_ROOT=/var/lib/gridengine SGE_CELL=default
common=$SGE_ROOT/$SGE_CELL/common

# Some forms of qconf wait for an editor or for an answer.
configure() { qconf "$@" </dev/null; }

if ! type -P sge_qmaster qsub sge_execd pgrep >/dev/null; then
    install gridengine-master gridengine-exec gridengine-client procps
fi

if ! qconf -sh >/dev/null 2>&1; then
    say "starting the master"
    # Every name of this machine is one host to Grid Engine, whatever the resolver says.
    names=$(getent hosts "$(hostname)" 127.0.0.1 | awk '{$1 = ""; print}')
    names=$(printf '%s\n' "$(hostname)" $names | grep -vx localhost | sort -u | xargs)
    echo "localhost $names" >$common/host_aliases
    echo localhost >$common/act_qmaster
    sge_qmaster
    wait_for 30 qconf -sh
fi

# The scheduler looks again at once; waiting for its usual 15 s would fill most of a test's time.
qconf -ssconf |
    sed -E 's/^(schedule_interval) .*/\1 0:0:1/
            s/^(flush_submit_sec|flush_finish_sec) .*/\1 1/' >"$work/scheduler"
configure -Msconf "$work/scheduler" >/dev/null

# Jobs of root are refused by default. Accounting is written at once. What root's login scripts do
# is no part of a test.
qconf -sconf global | sed -E ':join /\\$/ {N; s/ *\\\n +/ /; b join}' |
    sed -E 's/^(min_uid|min_gid) .*/\1 0/
            s/^(login_shells) .*/\1 none/
            s/ accounting_flush_time=[0-9:]+//g
            s/ flush_time=[0-9:]+/ accounting_flush_time=00:00:00 flush_time=00:00:01/
            s/^(load_report_time) .*/\1 00:00:05/
            s/^(max_unheard) .*/\1 00:00:15/' >"$work/global"
configure -Mconf "$work/global" >/dev/null

qconf -sh | grep -qx localhost || configure -ah localhost
qconf -ss | grep -qx localhost || configure -as localhost

# FORCED keeps jobs that ask for no GPU out of gpu.q; JOB counts it once a job, not once a slot.
if ! qconf -sc | grep -q '^gpu '; then
    qconf -sc | sed '/^#/d' >"$work/complexes"
    echo 'gpu gpu INT <= FORCED JOB 0 0' >>"$work/complexes"
    configure -Mc "$work/complexes" >/dev/null
fi

if ! qconf -sel | grep -qx localhost; then
    printf '%s\n' 'hostname localhost' 'load_scaling NONE' 'complex_values NONE' \
        'user_lists NONE' 'xuser_lists NONE' 'projects NONE' 'xprojects NONE' \
        'usage_scaling NONE' 'report_variables NONE' >"$work/host"
    configure -Ae "$work/host"
fi

if ! qconf -shgrpl | grep -qx @allhosts; then
    printf '%s\n' 'group_name @allhosts' 'hostlist localhost' >"$work/group"
    configure -Ahgrp "$work/group"
fi

if ! qconf -spl | grep -qx smp; then
    printf '%s\n' 'pe_name smp' 'slots 999' 'user_lists NONE' 'xuser_lists NONE' \
        'start_proc_args NONE' 'stop_proc_args NONE' 'allocation_rule $pe_slots' \
        'control_slaves FALSE' 'job_is_first_task TRUE' 'urgency_slots min' \
        'accounting_summary TRUE' 'qsort_args NONE' >"$work/pe"
    configure -Ap "$work/pe"
fi

for queue in cpu.q gpu.q; do
    qconf -sql | grep -qx $queue && continue
    # -sq without a name prints the defaults that a new queue would have.
    qconf -sq |
        sed -E "s/^(qname) .*/\1 $queue/
                s/^(hostlist) .*/\1 @allhosts/
                s/^(slots) .*/\1 2/
                s/^(pe_list) .*/\1 smp/
                s/^(shell) .*/\1 \/bin\/bash/
                s/^(load_thresholds) .*/\1 NONE/
                s/^(qtype) .*/\1 BATCH/" >"$work/queue"
    [ $queue = gpu.q ] && sed -i -E 's/^(complex_values) .*/\1 gpu=1/' "$work/queue"
    configure -Aq "$work/queue"
done

if ! pgrep -x sge_execd >/dev/null; then
    say "starting the execution daemon"
    sge_execd
fi

listening() { qhost -h localhost | awk '$1 == "localhost" && $4 != "-" {up = 1} END {exit !up}'; }
wait_for 60 listening
# A queue that an earlier fault put into the error state.
qmod -c '*' >/dev/null 2>&1 || true
say "ready: $(qconf -sql | xargs)"
