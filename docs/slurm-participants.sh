#!/bin/bash
#SBATCH --job-name=qsmxt
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=02:00:00
#SBATCH --output=qsmxt-%A_%a.log
# sbatch --array=1-N slurm-participants.sh BIDS OUT SUBJECTS, the file SUBJECTS holding one label a line
set -euo pipefail
bids=$1 out=$2 subjects=$3
label=$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$subjects")
[ -n "$label" ] || { echo "$subjects has no line $SLURM_ARRAY_TASK_ID" >&2; exit 66; }
work=$(mktemp -d "${TMPDIR:-/tmp}/qsmxt-XXXXXX")
trap 'rm -rf "$work"' EXIT
qsmxt "$bids" "$out" participant --participant-label "$label" --work-dir "$work" \
    --nprocs "$SLURM_CPUS_PER_TASK" --mem 8G --skip-bids-validation
