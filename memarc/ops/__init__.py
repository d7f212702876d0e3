"""ARRAYS -> ARRAYS: pure JAX functions with hand-written derivatives where they pay."""
