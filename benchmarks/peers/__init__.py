"""Peers: each is one module that sums clipped gradients and makes steps in its own framework."""
