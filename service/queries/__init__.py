"""Read-only queries of tables and streams, shared by the commands and other surfaces."""
