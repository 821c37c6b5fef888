"""What `tools/prove` runs: rows of the fault catalogue, the mutation check, the soak. Python's own library only."""
