"""From the archive to a submission. Importing it prepares the process for the libraries, and loads none of them."""

import os
import signal
import sys

from pipeline.base import environment, streams

if sys.platform == "win32":
    sys.exit("pipeline: it needs Linux or macOS; on Windows run it in WSL (`wsl --install`)")
# While `python -m` still imports, Ctrl-C ends it without a traceback. base/command.run then sets its own handler.
if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
streams.fill_closed()
environment.prepare()
# TensorFlow logs its build at every import, and no log level stops all of it. A level set by the user shows it.
if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3" and "tensorflow" not in sys.modules:
    sys.meta_path.insert(0, streams.QuietImport("tensorflow"))
