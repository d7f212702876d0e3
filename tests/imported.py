"""Imports what commands import, early or late, once for all of them (`tests.commands`)."""

import sklearn.metrics
import tokenizers
from transformers import PreTrainedTokenizerFast

import memarc.measure.step
import memarc.report.plots
import memarc.runs.account
import memarc.runs.audit
import memarc.runs.run

__all__ = ["PreTrainedTokenizerFast", "memarc", "sklearn", "tokenizers"]
