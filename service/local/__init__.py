"""The embedded AWS for demo and tests: an emulator, a Pinpoint fake, traffic. Nothing in production needs it."""
