"""The target `slurm`: a job or our script in an allocation, its nodes, what killed runs left."""
