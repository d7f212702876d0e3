"""PRIVATE GRADIENT -> STATE: step, loop, optimizer, checkpoints and log; the model is a loss_fn."""
