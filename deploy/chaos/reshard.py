"""Double and halve a stream's shards again and again. The profile `chaos` of docker-compose.yml runs it."""  # noqa: INP001 - a script

from __future__ import annotations

import argparse
import os
import sys
import time

import boto3
from botocore.exceptions import ClientError


def main() -> None:
    """Ask for the other count every so often. A refusal, such as a reshard still under way, is printed and skipped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stream", required=True, help="name of the stream")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two reshards")
    parser.add_argument("--times", type=int, default=0, help="how often; 0: without end")
    options = parser.parse_args()
    # boto3 reads AWS_DEFAULT_REGION only; the service's own commands accept either name.
    kinesis = boto3.client("kinesis", region_name=os.environ.get("AWS_REGION"))
    few = 0
    done = 0
    while not options.times or done < options.times:
        time.sleep(options.every)
        done += 1
        try:
            summary = kinesis.describe_stream_summary(StreamName=options.stream)["StreamDescriptionSummary"]
            few = few or summary["OpenShardCount"]
            target = few if summary["OpenShardCount"] > few else 2 * few
            kinesis.update_shard_count(
                StreamName=options.stream, TargetShardCount=target, ScalingType="UNIFORM_SCALING"
            )
        except ClientError as error:
            sys.stdout.write(f"not resharded: {error}\n")
        else:
            sys.stdout.write(f"resharding from {summary['OpenShardCount']} to {target}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
