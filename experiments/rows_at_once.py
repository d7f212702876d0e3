"""The flag of the commands that may measure fewer rows at once than a step has."""

from absl import flags

MICROBATCH_SIZE = flags.DEFINE_integer("microbatch_size", 0, "Rows at once; 0 means all.")


def microbatch_size(batch_size: int) -> int:
    """The value of --microbatch_size for a batch.

    Raises:
      ValueError: If it is larger than the batch.
    """
    if not 0 <= MICROBATCH_SIZE.value <= batch_size:
        raise ValueError(
            f"microbatch_size is {MICROBATCH_SIZE.value}; give 1 to {batch_size}, the batch size, "
            "or 0 for all."
        )
    return MICROBATCH_SIZE.value or batch_size
