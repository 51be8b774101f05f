"""8-bit quantisation of compiled models (docs/int8.md)."""
