"""Imports what commands import late, once for all of them (`tests.commands`)."""

import jaxlib.mlir.dialects.mhlo
import sklearn.metrics
import tokenizers
from transformers import PreTrainedTokenizerFast

import memarc.measure.step
import memarc.report.plots
import memarc.runs.account
import memarc.runs.audit
import memarc.runs.run

__all__ = ["PreTrainedTokenizerFast", "jaxlib", "memarc", "sklearn", "tokenizers"]
