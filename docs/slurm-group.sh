#!/bin/bash
#SBATCH --job-name=qsmxt-group
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=12:00:00
#SBATCH --output=qsmxt-group-%j.log
# sbatch --dependency=afterany:JOB slurm-group.sh BIDS OUT
set -euo pipefail
work=$(mktemp -d "${TMPDIR:-/tmp}/qsmxt-XXXXXX")
trap 'rm -rf "$work"' EXIT
qsmxt "$1" "$2" group --work-dir "$work" --nprocs "$SLURM_CPUS_PER_TASK" --mem 16G
