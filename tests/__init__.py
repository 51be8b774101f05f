"""The promises, kept as tests."""
