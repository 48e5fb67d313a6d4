#!/usr/bin/env bash
# Creates or updates a Hugging Face Space from a folder, with the hf command; no Python package of ours is needed.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: SPACE=USER/NAME deploy.sh [--dry-run|--help]

  --dry-run             print the hf commands and run none

Settings, from the environment:
  SPACE                 the Space, USER/NAME
  FOLDER                folder to upload; its README.md says "sdk: docker" and "app_port", and it has a Dockerfile
                        (this script's folder: the benchmark environment)
  PRIVATE               1 makes a new Space private (public)
  HARDWARE              for example cpu-upgrade (the Space's own, cpu-basic for a new one)
  WORKERS               worker processes, a variable of the Space (one per vCPU for the benchmark environment)
  MAX_CONCURRENT_ENVS   sessions per worker, a variable of the Space (no limit)
  HF                    the command (hf, of pip install huggingface_hub)

The token is the one of "hf auth login", or HF_TOKEN.
TEXT
}

run=()
case ${1:-} in
--help | -h) usage && exit 0 ;;
--dry-run) run=(show) ;;
"") ;;
*)
    echo "deploy.sh: takes no argument $1; see --help" >&2
    exit 2
    ;;
esac

show() {
    printf '%q ' "$@"
    echo
}

fail() {
    echo "deploy.sh: $1" >&2
    exit 2
}

hf=${HF:-hf} space=${SPACE:-} folder=${FOLDER:-$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)}
[[ $space == ?*/?* ]] || fail "SPACE is the Space to deploy to, USER/NAME; see --help"
[[ -f $folder/Dockerfile ]] || fail "there is no Dockerfile in $folder, from which a Space is built"
grep -qs '^sdk: docker' "$folder/README.md" || fail "README.md in $folder must begin with front matter that says sdk: docker"

variables=()
for name in WORKERS MAX_CONCURRENT_ENVS; do
    [[ -z ${!name:-} ]] || variables+=(--env "$name=${!name}")
done
create=("$hf" repos create "$space" --type space --sdk docker --exist-ok)
[[ ${PRIVATE:-} != 1 ]] || create+=(--private)

${run[@]+"${run[@]}"} "${create[@]}"
# Apart from the creation, so that a Space that is there gets them too; before the upload, so that it is built once.
if ((${#variables[@]})); then
    ${run[@]+"${run[@]}"} "$hf" spaces variables add "$space" "${variables[@]}"
fi
if [[ ${HARDWARE:-} ]]; then
    ${run[@]+"${run[@]}"} "$hf" spaces settings "$space" --hardware "$HARDWARE"
fi
${run[@]+"${run[@]}"} "$hf" upload "$space" "$folder" . --type space \
    --exclude '.*' --exclude '*/.*' --exclude '*__pycache__*' --commit-message "Deploy from ${folder##*/}"
