"""8-bit quantisation of compiled models (docs/int8.md).

`calibration` looks at values and chooses their ranges, `equalise` evens out channels, `quantizer`
turns a program into one on codes, `post_training` is the way in, `comparison` says what it costs.
"""
