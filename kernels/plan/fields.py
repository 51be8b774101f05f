"""The columns of a plan's table, and what stands in them.

Values are maps (N, H, W, C) of float32, or of codes (bytes), in one piece of memory; weights lie
in another. Places are in bytes from the beginning of either.
"""

from __future__ import annotations

# Kinds of steps.
CONVOLVE = 0  # fetch rows, multiply by a packed matrix, add a bias, PReLU, perhaps max-pool
DEPTHWISE = 1  # a window per channel, bias, PReLU
SCALE = 2  # x * scale + shift, PReLU
ADD = 3  # two maps, PReLU
COPY = 4  # into a part of a larger map: padding, concatenation, repeated channels
LARGEST = 5  # max-pool
AVERAGE = 6  # windows added up, times a share per window
# The same on codes (docs/int8.md); results are codes again, or float32 where Y_ITEM says so.
INT8_CONVOLVE = 7
INT8_DEPTHWISE = 8
INT8_LARGEST = 9
INT8_AVERAGE = 10  # of whole maps
INT8_ADD = 11
QUANTIZE = 12  # float32 to codes
DEQUANTIZE = 13  # codes to float32

# Columns.
KIND = 0
X, OTHER, Y = 1, 2, 3  # where the inputs and the output begin; OTHER is -1 but for ADD
X_LOCAL, OTHER_LOCAL, Y_LOCAL = 4, 5, 6  # whether that counts from the thread's own memory
HEIGHT, WIDTH, CHANNELS = 7, 8, 9  # of x; CHANNELS and TOTAL are more where pixels lie apart
OUT_HEIGHT, OUT_WIDTH, OUT_CHANNELS = 10, 11, 12  # of what is computed, before POOL
KERNEL_Y, KERNEL_X, STRIDE_Y, STRIDE_X, DILATION_Y, DILATION_X = 13, 14, 15, 16, 17, 18
TOP, LEFT = 19, 20  # zeros before the map; in COPY the place in the larger map
FIRST, COUNT = 21, 22  # channels of x that are read
TO, TOTAL = 23, 24  # first channel of y that is written, and how many it has in all
SOURCE = 25  # of CONVOLVE's rows
LENGTH, PITCH = 26, 27  # numbers in such a row, and from one row to the next
POOL = 28  # CONVOLVE keeps the largest of POOL x POOL outputs
LINES = 29  # rows of the map that CONVOLVE computes at a time
TAPS, PANELS, BIAS, SLOPE = 30, 31, 32, 33  # places in the weights
PERIOD = 34  # of SCALE's and ADD's numbers per column: C, or H * W * C
BY_PANEL = 35  # whether threads that share a step cut the matrix, not the map
REPEAT = 36  # how often COPY writes each channel
X_ITEM, Y_ITEM = 37, 38  # bytes of a number of x and of y: 4, or 1 for codes
ZERO_IN, ZERO_MID, ZERO_OUT = 39, 40, 41  # zero points: x; filtered rows, or ADD's other; y
FACTOR = 42  # place of the numbers that sums are multiplied with; of QUANTIZE the scale
TAPS_BIAS, TAPS_FACTOR, TAPS_SLOPE = 43, 44, 45  # places of what FILTERED's taps come with
BORDER = 46  # place of a pixel of ZERO_IN
WORK = 47  # numbers or products of an image: too few are not worth a second thread
PAIRED = 48  # whether CONVOLVE pairs rows and multiplies by halves (`kernels.strassen`)
HALVES = 49  # place of the matrix as that wants it, perhaps in memory of its own
RESULT = 50  # numbers from one row of CONVOLVE's results to the next: TOTAL, but for POOL
FIELDS = 51

# When rows are paired.
ALWAYS = 1
MANY_IMAGES = 2  # only in calls with many images
# Where CONVOLVE's rows come from.
IN_PLACE = 0  # x itself
WINDOWED = 1  # windows copied side by side (im2col)
FILTERED = 2  # a 3x3 depthwise convolution of x
ON_MAP = 3  # windows of x where they lie
