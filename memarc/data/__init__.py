"""TEXT -> ARRAYS: tasks, sources, splits, tokens and datasets on the host; knows no model."""
