"""Thin command lines over `memarc`; nothing imports them."""
