"""STEP -> FIGURES: memory, time and exactness of training steps of stated sizes."""
