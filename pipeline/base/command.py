"""How a stage or a command ends: quietly, or with one line that says what is wrong."""

import errno
import sys
from collections.abc import Callable

from pipeline.base.errors import BadInput

# What the machine refuses, as opposed to what the program does wrong.
MACHINE_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}


def run(name: str, main: Callable[[], None]) -> None:
    """Call `main`. Bad input or a full or read-only disk ends in one line on stderr and status 1, Ctrl-C in 130."""
    try:
        main()
    except BadInput as error:
        sys.exit(f"{name}: {error}")
    except OSError as error:
        if error.errno not in MACHINE_FAULTS:
            raise
        sys.exit(f"{name}: {error.strerror}: {error.filename or 'writing its output'}; nothing was half-written")
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted; `dvc repro` goes on from here", file=sys.stderr)
        sys.exit(130)
