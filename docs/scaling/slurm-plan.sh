#!/bin/bash
#SBATCH --job-name=prl-plan
#SBATCH --array=1-115%8
#SBATCH --cpus-per-task=8
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
# A job a run, as `reproduce ... --plan` counts them: --array=1-NUMBER, %8 of them at a time. One that needs another run
# makes it, or waits for whoever does. At the end, the same command without --cell writes the report.
set -euo pipefail
cd "${PRL_KERAS:?the folder of main.py, on a disk that all nodes see}"
exec .venv/bin/python main.py reproduce --dataset fashion_500 --rows strong --seeds 5 --cell "$SLURM_ARRAY_TASK_ID" \
    --runs-dir "${PRL_RUNS:-saved_models}"
