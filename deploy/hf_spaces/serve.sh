#!/bin/sh
# What the container of a Space runs: APP (module:app) from the one folder beside this script, else the benchmark environment.
set -eu
here=${0%/*}

# As many processors as the Space has paid for: nproc tells those of the machine it shares.
cores=$(nproc 2> /dev/null || echo 1)
limit=/sys/fs/cgroup/cpu.max
if [ -r "$limit" ] && read -r quota period < "$limit" && [ "$quota" != max ] && [ "$quota" -ge "$period" ]; then
    cores=$((quota / period))
fi

# A session is a descriptor. Every shell a Space may have knows -S and -H.
# shellcheck disable=SC3045
ulimit -S -n "$(ulimit -H -n)"

if [ -z "${APP:-}" ]; then
    WORKERS=${WORKERS:-$cores} exec python -m pytest_openenv_scale.server
fi

# The application is imported as in its repository: from its folder, or as a package of the folder's name.
for folder in "$here"/*/; do
    cd "$folder"
    export PYTHONPATH="$PWD:${PWD%/*}"
done

worker_class=asyncio
if python -c "import uvloop" 2> /dev/null; then
    worker_class=uvloop
fi

# An application of yours gets one worker: its limit counts per worker. 600 s: thousands of connections wait for their
# turn before they send a request; hypercorn's 5 s cut them off.
exec python -m hypercorn "$APP" \
    --bind "${HOST:-0.0.0.0}:${PORT:-8000}" --workers "${WORKERS:-1}" \
    --backlog 2048 \
    --worker-class "$worker_class" \
    --keep-alive 600
