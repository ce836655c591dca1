#!/usr/bin/env bash
# Test under Slurm: [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of test.py]
set -euo pipefail
[ $# -ge 4 ] || { echo "usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of test.py]" >&2; exit 1; }
GPUS=${GPUS:-8} GPUS_PER_NODE=${GPUS_PER_NODE:-8}
# shellcheck disable=SC2086  # SRUN_ARGS holds several words
exec srun -p "$1" --job-name "$2" --gres "gpu:$GPUS_PER_NODE" --ntasks "$GPUS" --ntasks-per-node "$GPUS_PER_NODE" \
    --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    python -u "$(dirname "$0")/test.py" "$3" "$4" --launcher slurm "${@:5}"
