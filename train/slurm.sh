#!/bin/bash
# On each node of a SLURM job, by srun: one torchrun that meets the others at the first node.
#     srun --nodes 4 --ntasks-per-node 1 --gpus-per-node 8 bash train/slurm.sh CONFIG -o RUN [key=value ...]
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
exec torchrun --nnodes "$SLURM_NNODES" --nproc_per_node "${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv_id "$SLURM_JOB_ID" --rdzv_backend c10d --rdzv_endpoint "$first:29500" \
    -m train.reconstruction "$@"
