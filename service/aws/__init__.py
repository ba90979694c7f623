"""Floor 2: one file per AWS API, each behind a port. Only here is botocore known."""
