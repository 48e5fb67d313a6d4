#!/usr/bin/env bash
# Serves an OpenEnv application with hypercorn, set up for many sessions at once.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: run_hypercorn.sh [--help]

Settings, from the environment:
  APP                   module:app to serve (pytest_openenv_scale.server.app:app, the benchmark environment)
  HOST                  address to listen on (127.0.0.1)
  PORT                  port to listen on (8000)
  WORKERS               worker processes (one per core for the benchmark environment, 1 for yours: its limit counts per worker)
  MAX_CONCURRENT_ENVS   sessions per worker; read by the application (its own default)
  BACKLOG               connections that may wait to be accepted (2048; the kernel allows net.core.somaxconn)
  PYTHON                python that has hypercorn and the application (python3)

An application of yours is imported from the current folder.
TEXT
}

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    usage
    exit 0
elif [[ $# -gt 0 ]]; then
    echo "run_hypercorn.sh: takes no argument $1; see --help" >&2
    exit 2
fi

workers=1
if [[ -z ${APP:-} ]]; then
    workers=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
fi
export APP=${APP:-pytest_openenv_scale.server.app:app} HOST=${HOST:-127.0.0.1} PORT=${PORT:-8000}
export WORKERS=${WORKERS:-$workers}
python=${PYTHON:-python3}

ulimit -Sn "$(ulimit -Hn)"   # a session is a descriptor

worker_class=asyncio
if "$python" -c "import uvloop" 2>/dev/null; then
    worker_class=uvloop
fi

# 600 s: thousands of connections wait for their turn before they send a request; hypercorn's 5 s cut them off.
exec "$python" -m hypercorn "$APP" \
    --bind "$HOST:$PORT" --workers "$WORKERS" \
    --backlog "${BACKLOG:-2048}" \
    --worker-class "$worker_class" \
    --keep-alive 600
