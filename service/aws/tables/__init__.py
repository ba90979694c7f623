"""One file per DynamoDB table, each behind a port."""
