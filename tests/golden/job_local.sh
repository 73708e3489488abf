#!/bin/bash
#SBATCH --job-name=toy
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --no-requeue
#SBATCH --open-mode=append
#SBATCH --output=/home/ada/runs/toy-1a2b3c4d/logs/job-%j.log
exec /venv/bin/python -m orchestrator.job /home/ada/runs/toy-1a2b3c4d
