"""The sections of a run's settings that no other package owns."""

import dataclasses

from memarc.ops import quantised
from memarc.privacy.ledger_entries import Budget

CANARY_KINDS = ("random", "unused", "sampled", "gradient")
"""Texts of random tokens, of tokens that no text becomes, and of the model's own; gradients."""

_LEAST_CANARIES = 50
"""Fewer of a kind tell nothing."""


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """Where the backbone comes from, and how it is held and computed.

    Attributes:
      weights: A local folder, a GGUF file, or a hub name.
      dtype: Compute dtype, "float32" or "bfloat16".
      storage_dtype: How frozen weights are held: "float32", "bfloat16", or the maps of layers in
        blocks of "int8" or "int4", or as a GGUF file has them, "gguf" (`pretrained.load`).
      storage_block: How many inputs of a map share a scale in "int8" and "int4".
      remat: "none" keeps the results of all linear maps for the backward pass, "layer" only each
        layer's input.
      attention_block: Queries that attend at once; 0 means all. It changes memory and speed only.
    """

    weights: str
    dtype: str = "float32"
    storage_dtype: str = "float32"
    storage_block: int = quantised.BLOCK
    remat: str = "none"
    attention_block: int = 0

    def __post_init__(self) -> None:
        """Checks that a block's size means something."""
        if self.storage_block != quantised.BLOCK and self.storage_dtype not in quantised.BITS:
            raise ValueError(
                f"model.storage_block is {self.storage_block}, but model.storage_dtype "
                f"{self.storage_dtype!r} has no blocks whose size can be chosen; give one of "
                f"{tuple(quantised.BITS)}, or leave the block {quantised.BLOCK}."
            )


@dataclasses.dataclass(frozen=True)
class HeadChoice:
    """How a classifier's head reads the states; the task says how many classes it has.

    Attributes:
      pooling: "first" reads the first token, "last" the last real one (of decoders), "mean" the
        mean of all real tokens; "words" takes the label whose ``words`` a decoder finds likeliest
        behind the row, without any map: a step does the work of as many rows as there are labels.
        "mask" reads the "<mask>" of ``data.template`` through an encoder's masked-language head.
      words: Words that stand for the labels, in their order, as they follow ``data.template``,
        such as " bad" and " good". With pooling "last" each is one token, and a decoder's own
        likelihoods of them are where training of the map starts; () draws it at random. With
        "mask" each is one token too, and an encoder's logits of them are that start.
      bias: Whether the head has a bias. transformers' decoders that classify have none, so a head
        without can be exported to them.
      class_weights: What the loss of each label is multiplied by, declared in public (never counted
        in private rows); () weighs all alike. Rule "automatic" of clipping would undo them.
      smoothing: Label smoothing of the training loss, in [0, 1).
      form: "linear", one map of the pooled state; or a dense map as wide as the states, a function
        and a map, as transformers' encoders classify: "dense_tanh" (BERT, RoBERTa and its like,
        MPNet), "dense_gelu" (ELECTRA) or "dense_relu" (DistilBERT). Both maps are drawn small.
    """

    pooling: str = "first"
    words: tuple[str, ...] = ()
    bias: bool = True
    class_weights: tuple[float, ...] = ()
    smoothing: float = 0.0
    form: str = "linear"


@dataclasses.dataclass(frozen=True)
class LedgerConfig:
    """Where spending is written down, and what runs that share a ledger may spend together.

    Attributes:
      folder: The ledger's folder; None keeps a ledger for the run alone, in the run's own folder
        and with the run's budget.
      epsilon: The budget of all runs in ``folder``; None takes the budget that the ledger has.
      delta: The delta of that budget; it is given together with ``epsilon``.
      dataset: Your name for the people whose rows these are. Under one name, rows that were cut
        otherwise, added or changed are of the same people, and spending on them adds up.
    """

    folder: str | None = None
    epsilon: float | None = None
    delta: float | None = None
    dataset: str | None = None

    def __post_init__(self) -> None:
        """Checks which fields go together."""
        if (self.epsilon is None) != (self.delta is None):
            raise ValueError(
                f"ledger.epsilon is {self.epsilon} and ledger.delta {self.delta}; give both, or "
                "none."
            )
        if self.folder is None and self.epsilon is not None:
            raise ValueError(
                "ledger.epsilon is the budget of runs that share a ledger; give ledger.folder too."
            )

    @property
    def budget(self) -> Budget | None:
        """The budget of a shared ledger; None where the ledger must exist and have one."""
        if self.epsilon is None or self.delta is None:
            return None
        return Budget(self.epsilon, self.delta)


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Length and housekeeping of a run.

    Attributes:
      epochs: Expected passes over the train set; a run has epochs * N / batch steps, at least 1,
        where N counts units.
      eval_batch_size: Rows per batch of predictions.
      eval_every: Steps between scores of ``data.validation`` while it trains; 0 for none.
      log_every: Steps between lines of the log.
      checkpoint_every: Steps between checkpoints.
      keep_checkpoints: How many of the latest checkpoints are kept while the run lasts.
      tensorboard: Whether TensorBoard event files are written too (extra "tensorboard").
    """

    epochs: float = 1.0
    eval_batch_size: int = 128
    eval_every: int = 0
    log_every: int = 10
    checkpoint_every: int = 20
    keep_checkpoints: int = 2
    tensorboard: bool = False

    def __post_init__(self) -> None:
        """Checks what the training code does not."""
        if not 0 < self.epochs < float("inf"):
            raise ValueError(f"training.epochs is {self.epochs}; give a finite number above 0.")
        if self.eval_every < 0:
            raise ValueError(
                f"training.eval_every is {self.eval_every}; give steps, or 0 for none."
            )
        if self.eval_batch_size < 1:
            raise ValueError(
                f"training.eval_batch_size is {self.eval_batch_size}; give at least 1."
            )


@dataclasses.dataclass(frozen=True)
class AuditConfig:
    """Canaries, and what is held against them. About half of each kind are in.

    Attributes:
      gradient_canaries: Rows with a coordinate of their own, which they move by the clip norm.
      random_canaries: Rows of random tokens; 0 leaves them out.
      unused_canaries: Rows of tokens that no text becomes; 0 leaves them out.
      sampled_canaries: Rows that the model itself wrote before training; 0 leaves them out.
      confidence: Confidence of all bounds together.
      claimed_epsilon: The claim that is tested; None takes the proven epsilon.
    """

    gradient_canaries: int = 10_000
    random_canaries: int = 500
    unused_canaries: int = 0
    sampled_canaries: int = 0
    confidence: float = 0.95
    claimed_epsilon: float | None = None

    def __post_init__(self) -> None:
        """Checks all fields."""
        if self.gradient_canaries < _LEAST_CANARIES:
            raise ValueError(
                f"audit.gradient_canaries is {self.gradient_canaries}; give at least "
                f"{_LEAST_CANARIES}."
            )
        for kind in CANARY_KINDS:
            given = getattr(self, f"{kind}_canaries")
            if given and given < _LEAST_CANARIES:
                raise ValueError(
                    f"audit.{kind}_canaries is {given}; give at least {_LEAST_CANARIES}, or 0."
                )
        if not 0 < self.confidence < 1:
            raise ValueError(f"audit.confidence is {self.confidence}; give a number in (0, 1).")

    @property
    def counts(self) -> dict[str, int]:
        """Kind -> how many, of those that there are; gradient canaries last."""
        found = {kind: getattr(self, f"{kind}_canaries") for kind in CANARY_KINDS}
        return {kind: count for kind, count in found.items() if count}
