#!/usr/bin/env bash
# Runs an OpenEnv image as one container, set up for many sessions at once, until Ctrl-C.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: run_docker.sh [--dry-run|--help]

  --dry-run             print the docker commands and run none

Settings, from the environment:
  IMAGE                 image to run, or a folder with a Dockerfile (it begins with ".", "/" or "~"), which is built
                        first (../docker beside this script: the benchmark environment)
  BASE_IMAGE, PACKAGE   arguments of the packaged Dockerfile's build (its defaults)
  HOST                  address of this machine to publish the port on (127.0.0.1)
  PORT                  port to publish (8000); the server in the container listens on the same one
  WORKERS               worker processes (the image's own default)
  MAX_CONCURRENT_ENVS   sessions per worker (the image's own default)
  CPUS, MEMORY          limits of the container, for example 2 and 4g (none)
  GPUS                  GPUs the container gets, for example device=0 (none): one container per GPU
  NETWORK               "host" instead of a published port, for engines without a bridge (bridge)
  NOFILE                descriptors per process (the hard limit of this shell)
  DOCKER                the command (docker)
TEXT
}

build=() run=(exec) docker=${DOCKER:-docker}
case ${1:-} in
--help | -h) usage && exit 0 ;;
--dry-run) build=(show) run=(show) ;;
"") ;;
*)
    echo "run_docker.sh: takes no argument $1; see --help" >&2
    exit 2
    ;;
esac

show() {
    printf '%q ' "$@"
    echo
}

host=${HOST:-127.0.0.1} port=${PORT:-8000} nofile=${NOFILE:-$(ulimit -Hn)}
image=${IMAGE:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../docker" && pwd)}

if [[ $image == [./~]* ]]; then
    folder=${image/#\~/$HOME}
    name=$(basename "$(cd "$folder" && pwd)" | tr '[:upper:]' '[:lower:]')
    [[ ${IMAGE:-} ]] || name=benchmark
    tag=openenv-$name
    arguments=()
    for name in BASE_IMAGE PACKAGE; do
        [[ -z ${!name:-} ]] || arguments+=(--build-arg "$name=${!name}")
    done
    ${build[@]+"${build[@]}"} "$docker" build --tag "$tag" ${arguments[@]+"${arguments[@]}"} "$folder"
    image=$tag
fi

options=(--rm --init --env "PORT=$port")
# A session is a descriptor. "unlimited" is no number; a limit above the engine's own is refused by it.
[[ $nofile == unlimited ]] || options+=(--ulimit "nofile=$nofile:$nofile")
if [[ ${NETWORK:-bridge} == host ]]; then
    options+=(--network host --env "HOST=$host")
else
    options+=(--publish "$host:$port:$port" --env HOST=0.0.0.0)
fi
for name in WORKERS MAX_CONCURRENT_ENVS; do
    [[ -z ${!name:-} ]] || options+=(--env "$name=${!name}")
done
[[ -z ${CPUS:-} ]] || options+=(--cpus "$CPUS")
[[ -z ${MEMORY:-} ]] || options+=(--memory "$MEMORY")
[[ -z ${GPUS:-} ]] || options+=(--gpus "$GPUS")

# In place of this shell, so that a signal to it reaches the container.
"${run[@]}" "$docker" run "${options[@]}" "$image"
