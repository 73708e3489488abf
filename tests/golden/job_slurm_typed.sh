#!/bin/bash
#SBATCH --job-name=toy
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=a100:4
#SBATCH --partition=debug
#SBATCH --no-kill
#SBATCH --no-requeue
#SBATCH --open-mode=append
#SBATCH --output=/home/ada/runs/toy-1a2b3c4d/logs/job-%j.log
exec /venv/bin/python -m orchestrator.job /home/ada/runs/toy-1a2b3c4d
