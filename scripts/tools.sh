# What the scripts need beyond cargo, found or installed once. Sourced, not run.
#
# Everything lands in $PLIMSOLL_TOOLS (default: ~/.cache/plimsoll), outside target/, so that `cargo clean` keeps it.

PLIMSOLL_TOOLS="${PLIMSOLL_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/plimsoll}"
export PLIMSOLL_TOOLS
PATH="$PLIMSOLL_TOOLS/bin:$PATH"

say() { printf '\n== %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# need_package COMMAND PACKAGE: a command from the system, installed where this user may do so.
need_package() {
  command -v "$1" >/dev/null && return
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    say "installing the system package $2, because '$1' is missing"
    apt-get update -q && apt-get install -yq "$2"
  fi
  command -v "$1" >/dev/null || die "'$1' is missing; install the system package '$2'"
}

# need_cargo_tool COMMAND CRATE VERSION: a cargo subcommand, built once.
need_cargo_tool() {
  command -v "$1" >/dev/null && return
  say "building $2 $3 into $PLIMSOLL_TOOLS (once; some minutes)"
  cargo install --locked --root "$PLIMSOLL_TOOLS" --version "$3" "$2"
}

# need_python: a virtual environment with the packages of tests/requirements.txt; its path goes to PLIMSOLL_PYTHON.
need_python() {
  need_package python3 python3
  PLIMSOLL_PYTHON="$PLIMSOLL_TOOLS/venv/bin/python"
  export PLIMSOLL_PYTHON
  local wanted="$PLIMSOLL_TOOLS/venv/requirements.txt"
  cmp -s tests/requirements.txt "$wanted" && return
  say "making the Python environment of the tests in $PLIMSOLL_TOOLS/venv (once)"
  rm -rf "$PLIMSOLL_TOOLS/venv"
  if ! python3 -m venv "$PLIMSOLL_TOOLS/venv" >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || die "python3 has no venv; install the system package 'python3-venv'"
    say "installing the system package python3-venv, because python3 has no venv"
    apt-get update -q && apt-get install -yq python3-venv
    python3 -m venv "$PLIMSOLL_TOOLS/venv"
  fi
  "$PLIMSOLL_PYTHON" -m pip install -q --disable-pip-version-check -r tests/requirements.txt
  cp tests/requirements.txt "$wanted"
}
