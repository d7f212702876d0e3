"""LOSSES -> PRIVATE GRADIENT: clipping, noise, sampling and accounting; knows no model, no data."""
