"""The card of a model that is handed on: what was promised, what was not, and how to open it."""

import math

from memarc.report.records import Record

_NOT_COVERED = (
    "Not covered are exact scores on evaluation rows{people}, and choices that were made by "
    "looking at scores. The backbone's own training data are not protected."
)


def text(record: Record, *, library: str, base: str, opens: str) -> str:
    """Writes the card, as Markdown with the fields that model hubs read.

    Args:
      record: The run's record.
      library: The library that opens the folder, "peft" or "transformers".
      base: The weights that the run started from.
      opens: Python code that opens the folder.

    Returns:
      The card; it holds nothing but what the record says.
    """
    scores = ", ".join(f"{name} {value:.4g}" for name, value in record.scores.items()) or "none"
    facts = {
        "epsilon": f"{record.epsilon:.6g} (by {record.accountant.upper()})",
        "delta": f"{record.delta:g}",
        "unit": record.unit,
        "neighbours": record.neighbouring,
        "sampling": f"{record.sampler}, rate {record.sampling_rate:.6g}, {record.steps} steps",
        "clipping": f"{record.clipping}, norm {record.clip_norm:g}",
        "noise multiplier": f"{record.noise_multiplier:.6g}",
        "method": f"{record.method}, {record.trainable_parameters:,} parameters",
        "task": record.task,
        "scores": scores,
        "made with": f"memarc {record.versions.get('memarc', 'unknown')}, {record.commit}",
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    warning = _warning(record)
    return (
        f"---\nlibrary_name: {library}\nbase_model: {base}\ntags:\n- differential-privacy\n---\n\n"
        f"# {record.name}\n\n{record.backbone}, tuned by memarc.\n\n{warning}"
        f"| | |\n| --- | --- |\n{lines}\n\n{_not_covered(record)}\n\n```python\n{opens}```\n"
    )


def _not_covered(record: Record) -> str:
    """What the promise leaves out; several rows of one person, unless a person is the unit."""
    return _NOT_COVERED.format(people="" if record.is_of_people else ", several rows of one person")


def _warning(record: Record) -> str:
    """What makes the promise void, if anything does."""
    found = []
    if math.isinf(record.epsilon):
        found.append("it was trained without noise")
    if record.reproducible_noise:
        found.append(f"its noise came from a {record.reproducible_noise}")
    return f"**This model is not private: {', and '.join(found)}.**\n\n" if found else ""
