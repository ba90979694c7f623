"""The way of the Lambda functions that the service replaces, in our own rendering: one record after the other, boto3.

For every record: read the definition, ask Pinpoint whose the endpoint is, add to the score, then write the new score to
every endpoint of the user. It is given what it does not do by itself: the shards, and nothing ever fails.
"""

from __future__ import annotations

import json
from decimal import Decimal

import boto3

PROJECT = "5f0c2d9e8b7a4c61a3d2e1f0b9c8a7d6"


def main() -> None:
    kinesis, pinpoint = boto3.client("kinesis"), boto3.client("pinpoint")
    resource = boto3.resource("dynamodb")
    definitions, scores = resource.Table("engagementScoreDefinition"), resource.Table("userEngagementScore")

    def handle(record: dict) -> None:
        event = json.loads(record["Data"])
        project = event["application"]["app_id"]
        definition = definitions.get_item(Key={"EventType": event["event_type"], "PinpointProjectId": project})
        if "Item" not in definition:
            return
        endpoint = pinpoint.get_endpoint(ApplicationId=project, EndpointId=event["client"]["client_id"])
        user = endpoint["EndpointResponse"]["User"]["UserId"]
        updated = scores.update_item(
            Key={"UserId": user, "PinpointProjectId": project},
            UpdateExpression="ADD Score :points",
            ExpressionAttributeValues={":points": Decimal(definition["Item"]["ScoreOffset"])},
            ReturnValues="UPDATED_NEW",
        )
        score = updated["Attributes"]["Score"]
        for each in pinpoint.get_user_endpoints(ApplicationId=project, UserId=user)["EndpointsResponse"]["Item"]:
            pinpoint.update_endpoint(
                ApplicationId=project,
                EndpointId=each["Id"],
                EndpointRequest={"User": {"UserId": user, "UserAttributes": {"EngagementScore": [str(score)]}}},
            )

    iterators = {}
    for shard in kinesis.list_shards(StreamName="engagement")["Shards"]:
        found = kinesis.get_shard_iterator(
            StreamName="engagement", ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )
        iterators[shard["ShardId"]] = found["ShardIterator"]
    while True:
        for shard_id, iterator in iterators.items():
            page = kinesis.get_records(ShardIterator=iterator, Limit=100)
            iterators[shard_id] = page["NextShardIterator"]
            for record in page["Records"]:
                handle(record)


main()
