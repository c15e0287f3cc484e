import os

# TensorFlow's notes on its own build, many lines at every start; errors still come as exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
