"""STATE -> SCORES: predictions over whole evaluation sets, and their scores."""
