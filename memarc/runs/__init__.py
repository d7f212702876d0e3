"""CONFIG -> RUN: settings, the parts of a run, training, records, and models from folders."""
