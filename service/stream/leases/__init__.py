"""Which worker reads which shard: membership, leadership, planning, lease transitions."""
