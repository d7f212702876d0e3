"""One file per experiment family; plain values only."""
