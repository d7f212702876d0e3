"""Differentially private fine-tuning of language models in memory that hardly grows with depth."""
