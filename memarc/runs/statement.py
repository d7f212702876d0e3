"""The privacy statement of a run: all that someone needs to judge its promise.

The fields are those that NIST SP 800-226 asks an evaluator to look for, and that a registry of
deployments (arXiv 2509.13509) lists.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memarc.privacy import accounting, ledger_entries, zeroth_order
from memarc.privacy.sampling import PoissonSampler
from memarc.report import records
from memarc.report.records import Record, encode

FILES = ("privacy_statement.md", "privacy_statement.json")

AUDIT_FILE = "audit.json"
"""What an audit writes into its folder."""

_OF_THE_RUN = (
    "task",
    "method",
    "delta",
    "clip_norm",
    "noise_multiplier",
    "sampling_rate",
    "steps",
)
"""What an audit and the record of a run must agree in."""

_GRADIENTS = "Gaussian noise on sums of clipped per-example gradients (Abadi et al. 2016)"
_SLOPES = (
    "Gaussian noise on sums of clipped per-example slopes along one random direction a step "
    "(Tang et al. 2024)"
)
"""What a step noises, by every engine that takes gradients, and by the one that takes slopes."""

_RELEASED = ("trainable.safetensors", "drawn.safetensors")

_NOT_COVERED = (
    "exact scores and texts on evaluation rows",
    "choices among runs that were made by looking at scores, and runs that are not in the ledger",
    "the backbone's pre-training data and the tokenizer",
    "the number of units and caps on lengths, which are public",
    "checkpoints while the run lasts, and the ledger: both are secret",
)


_OF_ROWS = "several rows of one person, unless the unit says otherwise"
_OF_PEOPLE = (
    "a person under several names in the column that names people",
    "what the rows of some people say of others",
)


def make(folder: Path, audit: Path | None = None) -> dict[str, Any]:
    """Gathers the statement of a finished run from its folder.

    Args:
      folder: Holds the run's record; hashes of what else is there are added.
      audit: The folder of an audit of the same run (`memarc.runs.audit`); None if there is none.

    Returns:
      Section -> field -> value, plain JSON values.

    Raises:
      ValueError: If there is no record, or it cannot be read, or the audit is of another run.
    """
    record = records.read(folder / records.FILE_NAME)
    return encode(
        {
            "promise": _promise(record),
            "mechanism": _mechanism(record),
            "accounting": _accounting(record),
            "audit": _audit(record, audit),
            "composition": _composition(record, folder),
            "covered": ["the released parameters and all that is computed from them", "the log"],
            "not_covered": [*(_OF_PEOPLE if record.is_of_people else [_OF_ROWS]), *_NOT_COVERED],
            "before_training": {"backbone": record.backbone, "method": record.method},
            "threat_model": "someone who sees the released parameters and the public log of every "
            "step, knows all units but one, and chooses that one",
            "scores": _scores(record),
            "made_with": {
                "commit": record.commit,
                "versions": record.versions,
                "device": record.device,
                "engine": record.engine,
            },
            "hashes": _hashes(record, folder),
        }
    )


def _promise(record: Record) -> dict[str, Any]:
    is_void = bool(record.reproducible_noise) or math.isinf(record.epsilon)
    return {
        "definition": "(epsilon, delta) differential privacy, Dwork et al. 2006",
        "epsilon": record.epsilon,
        "delta": record.delta,
        "unit": record.unit,
        "most_rows_of_a_unit": record.rows_per_unit or 1,
        "neighbouring": record.neighbouring,
        "holds": not is_void,
        "why_it_does_not": record.reproducible_noise or ("no noise" if is_void else None),
        "misses": "someone who owns k units has k times the epsilon and more of delta",
    }


def _mechanism(record: Record) -> dict[str, Any]:
    privacy = record.config["privacy"]
    return {
        "name": _SLOPES if record.engine == zeroth_order.NAME else _GRADIENTS,
        "an_example_is": "one unit, by the mean gradient of those of its rows that are used"
        if record.rows_per_unit
        else "one unit, which is one row",
        "clip_norm": record.clip_norm,
        "clipping": record.clipping,
        "clipping_scope": privacy.get("clipping_scope", "flat"),
        "noise_multiplier": record.noise_multiplier,
        "noise": "float32 or wider, once a step, by JAX's generator from "
        + ("a fixed seed" if record.reproducible_noise else "128 bits of the operating system"),
        "divisor": record.expected_batch_size,
        "divisor_is": "the planned batch size, public; never the size of a draw",
        "sampler": f"{record.sampler}: every unit joins each batch by itself",
        "sampling_rate": record.sampling_rate,
        "num_examples": round(record.expected_batch_size / record.sampling_rate),
        "max_batch_size": privacy.get("max_batch_size"),
        "steps": record.steps,
    }


def _accounting(record: Record) -> dict[str, Any]:
    alone = PoissonSampler(_mechanism(record)["num_examples"], 1.0)
    without = accounting.epsilon(
        alone,
        noise_multiplier=record.noise_multiplier,
        steps=record.steps,
        delta=record.delta,
        accountant="pld",
    )
    return {
        "accountant": record.accountant,
        "library": f"dp-accounting {record.versions.get('dp-accounting', 'unknown')}",
        "epsilon": record.epsilon,
        "epsilon_pld": record.epsilon_pld,
        "epsilon_without_amplification_by_sampling": without,
    }


def _audit(record: Record, folder: Path | None) -> dict[str, Any] | str:
    """What an audit of the run found: lower bounds, to stand beside the proof."""
    if folder is None:
        return "none was made of this run; experiments.audit bounds epsilon from below"
    try:
        found = json.loads((folder / AUDIT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / AUDIT_FILE} cannot be read as an audit ({error}).") from error
    differs = [
        f"{name} {found.get(name)} (the run has {getattr(record, name)})"
        for name in _OF_THE_RUN
        if found.get(name) != getattr(record, name)
    ]
    if differs:
        raise ValueError(f"The audit in {folder} is of another run: {', '.join(differs)}.")
    return {
        "epsilon_is_at_least": found["empirical_epsilon"],
        "by_noised_gradients_of_all_steps": found["trajectory_epsilon"],
        "by_released_parameters": found["released_epsilon"],
        "confidence": found["confidence"],
        "canaries": sum(
            x["included"] + x["left_out"]
            for x in found["canaries"]
            if (x["kind"], x["seen"]) != ("gradient", "trajectory")
        ),
        "assumes": "that the coins of canaries were fair",
    }


def _composition(record: Record, folder: Path) -> dict[str, Any]:
    shared = record.config["ledger"]["folder"] if "ledger" in record.config else None
    return {
        "runs_of_the_ledger_at_the_end": record.ledger,
        "ledger": "shared with other runs" if shared else "of this run alone",
        "ledger_head": _hash(folder / ledger_entries.FILE_NAME),
    }


def _scores(record: Record) -> dict[str, Any]:
    """Scores, with their standard errors where these are known."""
    return {
        name: {"value": value, "standard_error": record.standard_error(name)}
        for name, value in record.scores.items()
    }


def _hashes(record: Record, folder: Path) -> dict[str, Any]:
    config = json.dumps(record.config, sort_keys=True).encode()
    files = {name: _hash(folder / name) for name in (*_RELEASED, records.FILE_NAME)}
    return {**files, "config": hashlib.sha256(config).hexdigest()}


def _hash(file: Path) -> str | None:
    """SHA-256 of a file; None if it is not there."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def recomputed_epsilon(statement: Mapping[str, Any]) -> float:
    """Computes epsilon again from what a statement says, by its own accountant.

    Args:
      statement: What `make` gave, or its JSON file as it was read.
    """
    mechanism, promise = statement["mechanism"], statement["promise"]
    return accounting.epsilon(
        PoissonSampler(
            mechanism["num_examples"], mechanism["sampling_rate"], mechanism["max_batch_size"]
        ),
        noise_multiplier=mechanism["noise_multiplier"],
        steps=mechanism["steps"],
        delta=promise["delta"],
        accountant=statement["accounting"]["accountant"],
    )


def as_markdown(statement: Mapping[str, Any]) -> str:
    """Writes a statement as a page."""
    lines = ["# Privacy statement", ""]
    for section, content in statement.items():
        lines += [f"## {section.replace('_', ' ').capitalize()}", ""]
        if isinstance(content, str):
            lines += [content, ""]
        elif isinstance(content, list):
            lines += [*(f"- {item}" for item in content), ""]
        else:
            rows = (f"| {name.replace('_', ' ')} | {_told(x)} |" for name, x in content.items())
            lines += ["| | |", "| --- | --- |", *rows, ""]
    return "\n".join(lines)


def _told(value: Any) -> str:
    """A value within a table."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_told(x)}" for name, x in value.items() if x is not None)
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)


def write(folder: Path, audit: Path | None = None) -> tuple[Path, Path]:
    """Writes both files of a run's statement into its folder.

    Args:
      folder: The run's folder (`make`).
      audit: The folder of an audit of it, or None (`make`).

    Returns:
      The page, and the JSON file.

    Raises:
      ValueError: For what `make` refuses.
    """
    statement = make(folder, audit)
    page, data = (folder / name for name in FILES)
    page.write_text(as_markdown(statement), encoding="utf-8")
    data.write_text(json.dumps(statement, indent=2) + "\n", encoding="utf-8")
    return page, data
