"""What every kernel must compute: plain NumPy float64, written apart from the kernels."""
