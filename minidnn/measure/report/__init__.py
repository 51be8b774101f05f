"""One page about this machine and these kernels: measured, kept as JSON, drawn as HTML."""
