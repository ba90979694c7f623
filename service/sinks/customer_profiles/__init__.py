"""Amazon Connect Customer Profiles as a sink."""
