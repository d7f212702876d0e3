"""Sizes for memory reports."""
