"""Reshard a stream for ever: two shards, four, two, ... The profile `chaos` of docker-compose.yml runs it."""  # noqa: INP001 - a script, no package

from __future__ import annotations

import argparse
import sys
import time
from itertools import cycle

import boto3
from botocore.exceptions import ClientError

SHARD_COUNTS = (4, 2)


def main() -> None:
    """Ask for the next count every so often; a refusal (a reshard still under way) is said and passed over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stream", required=True, help="name of the stream")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two reshards")
    parser.add_argument("--times", type=int, default=0, help="how often; 0: for ever")
    options = parser.parse_args()
    kinesis = boto3.client("kinesis")
    for round_number, shards in enumerate(cycle(SHARD_COUNTS), start=1):
        time.sleep(options.every)
        try:
            kinesis.update_shard_count(
                StreamName=options.stream, TargetShardCount=shards, ScalingType="UNIFORM_SCALING"
            )
        except ClientError as error:
            sys.stdout.write(f"not resharded: {error}\n")
        else:
            sys.stdout.write(f"resharding to {shards}\n")
        if round_number == options.times:
            return


if __name__ == "__main__":
    main()
