"""Times memarc against its peers on the same weights and the same batches."""
