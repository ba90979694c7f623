"""Amazon Pinpoint's endpoints as a sink."""
