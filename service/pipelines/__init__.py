"""Floor 2: records to committed scores (`ingest`), changed scores to sinks (`publish`)."""
