"""The two kinds of stream behind `ShardSource`: Kinesis and DynamoDB streams."""
