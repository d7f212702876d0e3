"""The paper's tables: a config for each, with the published hyper-parameters of its baselines."""
