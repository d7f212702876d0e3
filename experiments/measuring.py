"""Flags of the commands that measure methods."""

from absl import flags

METHODS = flags.DEFINE_list("methods", ["lora"], "Tuning methods, each also with +remat.")
OUTPUT = flags.DEFINE_string("output", None, "File of JSON lines to write.")
