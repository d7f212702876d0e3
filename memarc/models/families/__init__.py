"""Families of backbones, one a file; `memarc.models.families.known` lists them."""
