"""PUBLIC TEXT -> WEIGHTS: small backbones trained without privacy on public rows."""
