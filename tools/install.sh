#!/bin/sh
# Install requirement files into .venv: `PYTHON= sh tools/install.sh requirements.txt`, from the repository's root.
# A new .venv takes the Python that PYTHON names, or else the newest that it finds; a .venv that works is kept.
set -eu
ready=.venv/.ready # the folder that .venv was made in, and a checksum of each file installed; absent if interrupted
probe='import sys; assert sys.version_info[:2] in [(3, 11), (3, 12), (3, 13)]
print("%d.%d" % sys.version_info[:2], sys.base_prefix)'

fail() {
  echo "$1" >&2
  exit 1
}

check_git() {
  command -v git >/dev/null || fail 'git is not installed; install it (Debian, Ubuntu: sudo apt install git)'
  reason=$(LC_ALL=C git rev-parse --git-dir 2>&1 >/dev/null) || case $reason in
    *'not a git repository (or any'*) ;;
    *) fail "$reason" ;;
  esac
  [ -z "$(git rev-parse --show-prefix 2>&1)" ] && git rev-parse --quiet --verify HEAD >/dev/null ||
    fail 'DVC needs a git repository of this folder, with a commit: git init && git add -A && git commit -m start'
}

usable() {
  [ "$(sed -n 1p $ready 2>/dev/null)" = "$(pwd -P)" ] || return 1 # its scripts name the folder
  found=$(.venv/bin/python -c "$probe" 2>/dev/null) && [ -x .venv/bin/pip ] || return 1
  [ -z "$PYTHON" ] || [ "$found" = "$("$PYTHON" -c "$probe" 2>/dev/null)" ]
}

make_venv() {
  without=
  if [ -n "$PYTHON" ]; then set -- "$PYTHON"; else set -- python3.13 python3.12 python3.11 python3; fi
  for python; do
    found=$("$python" -c "$probe" 2>/dev/null) || continue # pyenv has commands that only fail
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
      [ ! -e .venv ] || echo '.venv is incomplete, was moved, or has another Python: it is made again'
      "$python" -m venv --clear .venv
      pwd -P >$ready
      return
    fi
    without=${without:-${found%% *}}
  done
  [ -z "$without" ] || fail "Python $without has no venv module (Debian, Ubuntu: sudo apt install python$without-venv)"
  fail "${PYTHON:-python3} is not Python 3.11, 3.12 or 3.13; name one: make PYTHON=/path/to/python3.13"
}

# Nothing in the user's own configuration of pip may send packages elsewhere.
install() {
  line="$1 $(cat constraints.txt "$1" | cksum)"
  if grep -qxF "$line" $ready; then return; fi
  echo "installing $1 into .venv"
  installed=$(ls .venv/lib/python3*/site-packages)
  mv $ready $ready.old
  trap : INT # pip ends by itself
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-user --target= \
    -c constraints.txt -r "$1" || {
    [ "$installed" != "$(ls .venv/lib/python3*/site-packages)" ] || mv $ready.old $ready # it installed nothing
    exit 1
  }
  { grep -v "^$1 " $ready.old; echo "$line"; } >$ready.new
  mv $ready.new $ready
}

check_git
usable || make_venv
for file; do install "$file"; done
