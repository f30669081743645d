#!/bin/bash
# Installs, configures and starts a Slurm of one machine (Debian, as root), for the tests.
#
#   tests/cluster/start-slurm.sh          once or again: what is there already stays
#
# One node with two CPUs and one GPU, which is a generic resource without a card. Without slurmdbd
# there is no sacct: profiles/slurm asks squeue.
set -euo pipefail
. "$(dirname "$0")/cluster.sh" slurm

if ! type -P slurmctld slurmd sbatch scontrol sinfo munged pgrep >/dev/null; then
    install slurm-wlm munge procps
fi

if ! munge -n >/dev/null 2>&1; then
    say "starting munge"
    if [ ! -s /etc/munge/munge.key ]; then
        mkdir -p /etc/munge
        head -c 1024 /dev/urandom >/etc/munge/munge.key
    fi
    mkdir -p /run/munge /var/log/munge /var/lib/munge
    chown munge: /etc/munge/munge.key /run/munge /var/log/munge /var/lib/munge
    chmod 400 /etc/munge/munge.key
    chmod 755 /run/munge
    su -s /bin/bash munge -c '/usr/sbin/munged --force'
    wait_for 20 munge -n
fi

mkdir -p /etc/slurm /var/lib/clotline-slurm/{state,spool} /var/log/slurm
cat >"$work/slurm.conf" <<CONF
ClusterName=clotline
SlurmctldHost=localhost
SlurmUser=root
SlurmdUser=root
StateSaveLocation=/var/lib/clotline-slurm/state
SlurmdSpoolDir=/var/lib/clotline-slurm/spool
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc=/var/log/slurm/jobs.txt
# squeue and scontrol must still know a job when Snakemake and the tests ask about its end.
MinJobAge=3600
ReturnToService=2
# Memory in Slurm's books: the tests' jobs ask for production's, and use little of it.
SlurmdParameters=config_overrides
NodeName=localhost CPUs=2 RealMemory=64000 Gres=gpu:1
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
CONF
echo 'NodeName=localhost Name=gpu Count=1 File=/dev/null' >"$work/gres.conf"

if ! cmp -s "$work/slurm.conf" /etc/slurm/slurm.conf; then
    cp "$work"/*.conf /etc/slurm/
    for daemon in slurmd slurmctld; do
        pkill -x $daemon || true
        wait_for 20 sh -c "! pgrep -x $daemon"
    done
fi
if ! pgrep -x slurmctld >/dev/null; then
    say "starting the controller"
    slurmctld
    wait_for 30 scontrol ping
fi
if ! pgrep -x slurmd >/dev/null; then
    say "starting the node's daemon"
    slurmd -N localhost
fi
scontrol update nodename=localhost state=resume 2>/dev/null || true
wait_for 60 sh -c "sinfo -h -o %t | grep -Eqx 'idle|mix|alloc'"
say "ready: $(sinfo -h -o '%P %c CPUs %m MB %G')"
