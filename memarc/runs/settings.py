"""The settings of one run, checked field by field; defaults stand in the sections' dataclasses."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from memarc.batches import CLASSIFICATION, GENERATION, REGRESSION
from memarc.data import template
from memarc.data.config import DataConfig, check_fit
from memarc.data.load import task_of
from memarc.data.tasks import Task
from memarc.evaluation.decoding import DecodingConfig
from memarc.models.head import MASK, ValueHeadConfig
from memarc.models.language import LanguageConfig
from memarc.models.methods import all_options
from memarc.privacy.mechanism import PrivacyConfig
from memarc.report.records import encode
from memarc.runs.sections import (
    AuditConfig,
    HeadChoice,
    LedgerConfig,
    ModelSource,
    TrainingConfig,
)
from memarc.training.optimizer import OptimizerConfig
from memarc.training.sharding import MeshConfig

_SHARED: Mapping[str, type] = {
    "data": DataConfig,
    "model": ModelSource,
    "privacy": PrivacyConfig,
    "ledger": LedgerConfig,
    "optimizer": OptimizerConfig,
    "training": TrainingConfig,
    "mesh": MeshConfig,
}

SECTIONS: Mapping[str, Mapping[str, type]] = {
    CLASSIFICATION: {**_SHARED, "head": HeadChoice},
    REGRESSION: {**_SHARED, "head": ValueHeadConfig},
    GENERATION: {**_SHARED, "head": LanguageConfig, "decoding": DecodingConfig},
}
"""Kind of task -> the sections of a run's settings, each a dataclass."""

OTHERS = ("task", "method", "seed", "options")
"""The fields of a run's settings that are no sections."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """One run.

    Attributes:
      task: Name of the task (`memarc.data.tasks`).
      data: Where rows come from, and how they become tokens.
      model: Where the backbone comes from.
      privacy: What the run promises.
      method: Name of the tuning method (`memarc.models.methods`).
      options: The method's options; those that are not given have their defaults.
      name: Name of the run within its config; "" takes the method's.
      seed: None draws entropy from the operating system; a number makes the run reproducible and
        hence not private against anyone who knows it.
      head: How losses are computed; None takes the defaults of the task's kind.
      decoding: How texts are written; None takes the defaults, and is all that tasks may have that
        write none.
      ledger: Where spending is written down.
      optimizer: How noised gradients become updates.
      training: Length and housekeeping.
      mesh: How devices share the work.
      audit: Canaries among the rows, of an audit; None in a run.

    Raises:
      ValueError: For an unknown task, method or option, or a section of another kind of task.
    """

    task: str
    data: DataConfig
    model: ModelSource
    privacy: PrivacyConfig
    method: str = "lora"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    name: str = ""
    seed: int | None = None
    head: HeadChoice | ValueHeadConfig | LanguageConfig | None = None
    decoding: DecodingConfig | None = None
    ledger: LedgerConfig = dataclasses.field(default_factory=LedgerConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    audit: AuditConfig | None = None

    def __post_init__(self) -> None:
        """Fills in what the task and the method decide, and checks what goes together."""
        check_fit(self.record_of_task, self.data)
        sections = SECTIONS[self.kind]
        for name in ("head", "decoding"):
            given, wanted = getattr(self, name), sections.get(name)
            if given is None and wanted:
                object.__setattr__(self, name, wanted())
            elif given is not None and not (wanted and isinstance(given, wanted)):
                raise ValueError(
                    f"{name} is {given!r}; task {self.task!r} is one of {self.kind}, so give "
                    f"{wanted.__name__ if wanted else None}."
                )
        self._check_mask()
        weighs = isinstance(self.head, HeadChoice) and self.head.class_weights
        if weighs and self.privacy.clipping == "automatic":
            raise ValueError(
                "head.class_weights has no effect with privacy.clipping='automatic', which scales "
                "every row's gradient to the same norm; choose another rule, or leave it ()."
            )
        if self.training.eval_every and not self.data.validation:
            raise ValueError(
                f"training.eval_every is {self.training.eval_every} and data.validation (); name "
                "files of public rows to score on while it trains, or leave it 0."
            )
        object.__setattr__(self, "options", all_options(self.method, self.options))
        object.__setattr__(self, "name", self.name or self.method)

    def _check_mask(self) -> None:
        """Raises ValueError unless a template has one mask where the head reads it, and else none.

        In generation a template is text.
        """
        text = self.data.template or ""
        count = 0 if self.kind == GENERATION else text.count(template.MASK)
        if self.fills_mask and count != 1:
            raise ValueError(
                f"head.pooling is 'mask', and data.template is {self.data.template!r}, which has "
                f"{template.MASK} {count} times: write it once, where a label's word would stand."
            )
        if count and not self.fills_mask:
            pooling = getattr(self.head, "pooling", None)
            raise ValueError(
                f"data.template is {text!r}, and head.pooling {pooling!r}, which does not read "
                f"{template.MASK}: give 'mask', of classification, or take it out."
            )

    @property
    def fills_mask(self) -> bool:
        """Whether the head reads a mask token, through the backbone's masked-language head."""
        return isinstance(self.head, HeadChoice) and self.head.pooling == MASK

    @property
    def record_of_task(self) -> Task:
        """What the task is, labels that the data section declares included."""
        return task_of(self.task, self.data)

    @property
    def kind(self) -> str:
        """The kind of the task (`memarc.batches.KINDS`)."""
        return self.record_of_task.kind

    @property
    def tokenizer(self) -> str:
        """Folder, hub name or "word_level"; the weights' own unless the data section names one."""
        return self.data.tokenizer or self.model.weights

    @property
    def data_to_load(self) -> DataConfig:
        """The data section with the tokenizer named."""
        return dataclasses.replace(self.data, tokenizer=self.tokenizer)

    @property
    def plain(self) -> dict[str, Any]:
        """All settings but the name as JSON values, for the record."""
        sections = {name: dataclasses.asdict(getattr(self, name)) for name in SECTIONS[self.kind]}
        others = {name: getattr(self, name) for name in OTHERS}
        canaries = {"audit": dataclasses.asdict(self.audit)} if self.audit else {}
        return encode({**others, **sections, **canaries, "options": dict(self.options)})

    @property
    def of_training(self) -> dict[str, Any]:
        """The part of ``plain`` that decides what is trained; how it is scored may change later."""
        plain = self.plain
        training = {k: x for k, x in plain["training"].items() if not k.startswith("eval_")}
        rest = {key: value for key, value in plain.items() if key != "decoding"}
        return {**rest, "training": training}
