"""What the writer and the readers of ONNX files in `bench.peers` agree on."""

INPUT = "images"
OUTPUT = "logits"
BATCH = "batch"  # the axis whose size a reader fixes

FLOAT32 = "float32.onnx"
FOLDED = "folded.onnx"  # batch norm in the convolutions, float32
QDQ = "qdq.onnx"  # int8: pairs of quantise and dequantise around float32 operators
QOPERATOR = "qoperator.onnx"  # int8: integer operators
NNCF = "nncf.xml"  # int8 in OpenVINO's own format, quantised by its own tool
