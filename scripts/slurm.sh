#!/bin/bash
# A Slurm of one node, this machine, to try sweeps on: all it writes lies in a folder, and stop ends what it started.
#
#   scripts/slurm.sh install         as root, on Debian or Ubuntu: the packages that it needs
#   scripts/slurm.sh start FOLDER    as root; prints the line that makes sbatch, squeue and scontrol find it
#   scripts/slurm.sh stop FOLDER     cancels its jobs and ends it
#
# SLURM_PORT (16817) and the port after it must be free. There is no accounting (sacct), and nothing confines a job.

set -euo pipefail

PATIENCE=20 # seconds for each thing that is waited for
PORT=${SLURM_PORT:-16817}

fail() { # WHAT: says it, and the ends of the logs, and ends
    echo "slurm.sh: $1" >&2
    tail -n 5 "${folder:-/nowhere}"/*.log >&2 2>/dev/null || true
    exit 1
}

until_true() { # COMMAND...: waits for its success
    local until=$((SECONDS + PATIENCE))
    while ((SECONDS < until)); do
        timeout "$PATIENCE" "$@" >>"$folder/waiting.log" 2>&1 && return
        sleep 0.2
    done
    return 1
}

write_settings() {
    cat >"$folder/slurm.conf" <<END
ClusterName=metarun
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
SlurmctldPort=$PORT
SlurmdPort=$((PORT + 1))
AuthInfo=socket=$folder/munge.socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobRequeue=1
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(getconf _NPROCESSORS_ONLN) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
}

start() {
    [[ $(id -u) == 0 ]] || fail "expected root: Slurm's node daemon runs as root"
    for tool in munged slurmctld slurmd; do
        command -v $tool >/dev/null || fail "$tool: expected it to be installed; see scripts/slurm.sh install"
    done
    mkdir -p "$folder"/{state,spool}
    folder=$(realpath "$folder")
    [[ ! -e $folder/slurm.conf ]] || fail "$folder: holds a Slurm; stop it, or choose another folder"
    export SLURM_CONF=$folder/slurm.conf
    write_settings
    head -c 128 /dev/urandom >"$folder/munge.key"
    chmod 600 "$folder/munge.key"
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munge.seed" 2>>"$folder/munged.log" || fail "no munged"
    slurmctld || fail "no slurmctld"
    until_true scontrol ping || fail "slurmctld does not answer"
    slurmd || fail "no slurmd"
    until_true sh -c "sinfo --noheader --format=%t | grep -qx idle" || fail "the node does not come up"
    echo "export SLURM_CONF=$SLURM_CONF"
}

stop() {
    folder=$(realpath "$folder")
    export SLURM_CONF=$folder/slurm.conf
    if [[ -e $folder/slurmctld.pid ]] && timeout 20 scontrol ping >/dev/null 2>&1; then
        timeout 20 scancel --user=root || true
        until_true sh -c '[ -z "$(timeout 20 squeue --noheader)" ]' || true
    fi
    for daemon in slurmd slurmctld munged; do
        pid=$(cat "$folder/$daemon.pid" 2>/dev/null) || continue
        [[ $(ps -o comm= -p "$pid") == "$daemon"* ]] || continue # another process has its number now
        kill "$pid"
        until_true sh -c "! kill -0 $pid" || kill -9 "$pid" || true
    done
    rm -f "$folder/slurm.conf"
}

case ${1-}:$# in
install:1)
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends munge slurm-wlm
    ;;
start:2 | stop:2)
    folder=$2
    "$1"
    ;;
*)
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
