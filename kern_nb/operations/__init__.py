"""What a script calls; magics and widgets call nothing else."""
