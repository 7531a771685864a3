"""The command line of the node. `workers.cli` adds the commands that need the model; it is what `tomonode` runs."""
