"""Reading one leased shard: fetch, buffer, hand on in batches, checkpoint."""
