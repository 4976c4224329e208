#!/bin/bash
#SBATCH --job-name=prl-table
#SBATCH --array=1-8
#SBATCH --cpus-per-task=8
#SBATCH --mem=8G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
# Eight workers on one table: each takes the next run that nobody works on. More may be added at any time, and one that
# is killed, or comes to its time limit, loses nothing but what it did since its last checkpoint.
set -euo pipefail
cd "${PRL_KERAS:?the folder of main.py, on a disk that all nodes see}"
exec .venv/bin/python main.py reproduce --dataset fashion_500 --rows strong --seeds 5 --shared \
    --runs-dir "${PRL_RUNS:-saved_models}"
