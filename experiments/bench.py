r"""Times whole training steps, private against the same step without privacy; JSON lines.

    python -m experiments.bench --config=configs/bench/w1.py --methods=lora,side,reversible \
        --engines=none,vmap,book_keeping --batch_size=16 --seq_len=128 --microbatch_size=4

Each case runs in a process of its own: compiled, warmed up, then timed. Engine "none" is the step
without privacy, on the whole batch; it is always measured, and over_plain is the median time over
its own. Utilisation needs --peak_flops, the device's peak for the dtype, in operations a second.
"""

from typing import Any

import tqdm
from absl import flags

from experiments import cli, measuring, rows_at_once, step_sizes
from memarc.measure import fresh
from memarc.measure import step as measure
from memarc.measure.case import Case, parse
from memarc.privacy import auto
from memarc.report import lines

_STEPS = flags.DEFINE_integer("steps", 10, "Timed steps of each case.", lower_bound=1)
_MICROBATCHES = flags.DEFINE_list("microbatch_sizes", [], "Sizes instead of --microbatch_size.")
_PEAK_FLOPS = flags.DEFINE_float("peak_flops", None, "The device's peak operations a second.")


def main() -> int:
    """Prints a line for every method, engine and microbatch size."""
    batch, tokens = step_sizes.BATCH_SIZE.value, step_sizes.SEQ_LEN.value
    sizes = [_size(x, batch) for x in _MICROBATCHES.value] or [rows_at_once.microbatch_size(batch)]
    engines = [name for name in step_sizes.engines() if name != measure.PLAIN]
    given = [
        parse(cli.config(), label, batch_size=batch, seq_len=tokens, layers=None)
        for label in measuring.METHODS.value
    ]
    runs = [(measure.PLAIN, batch), *((engine, size) for engine in engines for size in sizes)]
    with (
        lines.writer(measuring.OUTPUT.value) as write,
        tqdm.tqdm(total=len(given) * len(runs), unit="case") as bar,
    ):
        for case in given:
            plain = None
            for engine, size in runs:
                if engine == auto.AUTO:
                    engine = fresh.call(_chosen, case, size)
                found = fresh.call(measure.time_step, case, engine, size, _STEPS.value)
                plain = plain or found["median_seconds"]
                write(_line(case, engine, size, found, plain))
                bar.update()
    return 0


def _chosen(case: Case, microbatch_size: int) -> str:
    """The engine that "auto" means on this machine."""
    found = measure.compile_cheapest(case, auto.CANDIDATES, microbatch_size, measure.here())
    return found["engine"]


def _line(
    case: Case, engine: str, size: int, found: dict[str, Any], plain: float
) -> dict[str, Any]:
    """The line of one timed case."""
    median = found["median_seconds"]
    line = {
        **case.described,
        "engine": engine,
        "microbatch_size": size,
        **found,
        "over_plain": round(median / plain, 4),
        "examples_per_second": round(case.batch_size / median, 2),
        "tokens_per_second": round(case.batch_size * case.seq_len / median, 1),
        "flops_per_second": round(found["flops"] / median),
    }
    if _PEAK_FLOPS.value:
        line["utilisation"] = round(line["flops_per_second"] / _PEAK_FLOPS.value, 4)
    return line


def _size(value: str, batch: int) -> int:
    """One of --microbatch_sizes, checked."""
    if not str(value).isdecimal() or not 1 <= int(value) <= batch:
        raise ValueError(f"microbatch_sizes has {value}; give 1 to {batch}, the batch size.")
    return int(value)


if __name__ == "__main__":
    cli.run(main)
