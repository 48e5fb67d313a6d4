#!/usr/bin/env bash
# Allocates nodes and opens a shell in the allocation, or runs a command in it; the nodes are given back when that ends.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: alloc.sh [--help] [SALLOC-OPTION...] [COMMAND [ARGUMENT...]]

  alloc.sh                                             a shell; serve with ./serve_multi.sh, leave with exit
  alloc.sh --partition=NAME ./serve_multi.sh           serves until Ctrl-C
  WORKERS=3 CPUS_PER_WORKER=8 alloc.sh pytest -m scaling --openenv-target slurm

Settings, from the environment:
  WORKERS               nodes, each of which gets a server; Envoy shares the first one (2)
  CPUS_PER_WORKER       CPUs of each node (4)
  MEM                   memory of each node, for example 16G (as the partition has it)
  TIME                  time limit (1:00:00)
  PARTITION, ACCOUNT, QOS, CONSTRAINT
                        as salloc's options of these names; SALLOC_PARTITION and the like work as well (none)
  JOB_NAME              name of the job (openenv)
TEXT
}

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    usage
    exit 0
fi

export CPUS_PER_WORKER=${CPUS_PER_WORKER:-4}
options=(--job-name="${JOB_NAME:-openenv}" --nodes="${WORKERS:-2}" --ntasks-per-node=1
    --cpus-per-task="$CPUS_PER_WORKER" --time="${TIME:-1:00:00}" --no-kill)
for name in MEM PARTITION ACCOUNT QOS CONSTRAINT; do
    [[ -z ${!name:-} ]] || options+=("--${name,,}=${!name}")
done

# What was a number of nodes here is one of processes to the scripts that serve.
unset WORKERS
exec salloc "${options[@]}" "$@"
