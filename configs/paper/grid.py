"""What both tables share: methods by budgets, a run each, named SIZE-TASK-METHOD-BUDGET."""

METHODS = ("full", "lora", "adapter", "bitfit", "head", "side", "reversible")
BUDGETS = {"eps3": 3.0, "eps8": 8.0, "inf": float("inf")}


def runs(size, tasks, changes):
    """Every method at every budget on every task; ``changes(task, method)`` are a run's own."""
    return {
        f"{size}-{task}-{method}-{name}": _at(epsilon, changes(task, method))
        for task in tasks
        for method in METHODS
        for name, epsilon in BUDGETS.items()
    }


def _at(epsilon, changes):
    return {**changes, "privacy": {**changes["privacy"], "epsilon": epsilon}}


def tiny(config, tasks):
    """Makes a config a toy of the same code path: three steps on embedded rows.

    Runs say nothing of sizes but their method's options; what they change is the config's.
    """
    (task,) = tasks
    config.options.side.reduction = 2
    config.privacy.update(delta=1e-3, expected_batch_size=20)
    config.privacy.microbatch_size = config.privacy.physical_batch_size = 10
    config.privacy.engine = "vmap"
    config.training.update(epochs=1.0, eval_batch_size=16)
    config.data.update(train_rows=60, dev_rows=30)
    config.runs = runs("tiny", (task,), lambda _, method: {"method": method, "privacy": {}})
