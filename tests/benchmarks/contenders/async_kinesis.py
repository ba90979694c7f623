"""async-kinesis 3.0.1 (https://github.com/hampsterx/async-kinesis) feeding an UpdateItem per event, aiobotocore.

With its checkpoints in memory, and as many writes in flight as it hands over events: one after the other, as in its
documentation.
"""

from __future__ import annotations

import asyncio
import os

from aiobotocore.session import get_session
from kinesis import Consumer

POINTS = {"_email.delivered": 2, "_email.open": 10, "_email.click": 50}


async def main() -> None:
    async with (
        get_session().create_client("dynamodb") as dynamodb,
        Consumer(
            stream_name="engagement",
            endpoint_url=os.environ["AWS_ENDPOINT_URL_KINESIS"],
            iterator_type="TRIM_HORIZON",
            sleep_time_no_records=0.2,
        ) as consumer,
    ):
        while True:
            async for event in consumer:
                await dynamodb.update_item(
                    TableName="userEngagementScore",
                    Key={
                        "UserId": {"S": "u" + event["client"]["client_id"][1:]},
                        "PinpointProjectId": {"S": event["application"]["app_id"]},
                    },
                    UpdateExpression="ADD Score :points",
                    ExpressionAttributeValues={":points": {"N": str(POINTS[event["event_type"]])}},
                )


asyncio.run(main())
