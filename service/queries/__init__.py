"""What people ask of the tables and streams: read only, shared by commands and every other surface."""
