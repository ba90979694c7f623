"""kinesis-python 0.2.1 (https://github.com/NerdWalletOSS/kinesis-python) feeding an UpdateItem per event, boto3.

Without its checkpoint table, which would only cost more. It reads each shard in a process of its own.
"""

from __future__ import annotations

import json
from decimal import Decimal

import boto3
from kinesis.consumer import KinesisConsumer

POINTS = {"_email.delivered": 2, "_email.open": 10, "_email.click": 50}


def main() -> None:
    scores = boto3.resource("dynamodb").Table("userEngagementScore")
    consumer = KinesisConsumer(stream_name="engagement", boto3_session=boto3.Session())
    for record in consumer:
        event = json.loads(record["Data"])
        scores.update_item(
            Key={
                "UserId": "u" + event["client"]["client_id"][1:],
                "PinpointProjectId": event["application"]["app_id"],
            },
            UpdateExpression="ADD Score :points",
            ExpressionAttributeValues={":points": Decimal(POINTS[event["event_type"]])},
        )


if __name__ == "__main__":
    main()
