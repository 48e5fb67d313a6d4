"""The target `slurm`: a job or our script in an allocation, its nodes, and what killed runs left."""
