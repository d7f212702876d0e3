"""RECORDS -> TABLES: memory figures, one record per run, and tables made from records."""
