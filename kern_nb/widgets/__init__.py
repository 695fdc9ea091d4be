"""What is clicked: widgets over the store. `base` says how they are made; each has one module and one script."""
