"""The fast calls: ten hot operations without botocore's serializer (deploy/decisions/0004)."""
