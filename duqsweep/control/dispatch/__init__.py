"""Who evaluates: assignments to workers in this process, on this machine, on SLURM."""
