"""What is looked at before a job starts, one file a subject; `potstill.pipeline.check` says in which order, and when."""
