# Shared by the other scripts; sourced from the root of the checkout, never run.

if [[ -t 1 ]]; then bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
else bold='' dim='' red='' green='' plain=''; fi

step() { printf '%s==> %s%s\n' "$bold" "$*" "$plain"; }
fail() { printf '%s%s%s\n' "$red" "$1" "$plain" >&2; shift; (( $# == 0 )) || printf '%s\n' "$@" >&2; exit 1; }

# An activated virtual environment must not be the Python that makes .venv anew: it may be that very .venv.
if [[ -n ${VIRTUAL_ENV:-} ]]; then
  PATH=:$PATH:
  PATH=${PATH//":$VIRTUAL_ENV/bin:"/:}
  PATH=${PATH#:} PATH=${PATH%:}
  unset VIRTUAL_ENV
fi

# install_packages PACKAGE...: brings Debian packages, or says kindly which ones are missing.
install_packages() {
  if (( EUID != 0 )) || ! command -v apt-get >/dev/null; then
    fail "Some system packages are missing: $*" \
      "Install them and run this again. On Debian or Ubuntu: sudo apt-get install $*"
  fi
  step "Installing system packages: $*"
  local said
  said=$(apt-get update -qq 2>&1 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" 2>&1) ||
    fail "apt-get could not install them:" "$said"
}

# has_compilers: whether C and C++ programs can be made here.
has_compilers() {
  echo '#include <stdio.h>' | gcc -x c -fsyntax-only - 2>/dev/null &&
    echo '#include <iostream>' | g++ -x c++ -fsyntax-only - 2>/dev/null
}

# find_python: prints the first Python that is new enough and can make a virtual environment.
# Each candidate is run, not only looked up: a pyenv shim may exist for a version that is not installed.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14}; do
    "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    command -v "$candidate"
    return
  done
  return 1
}

# venv runtime|dev: makes .venv hold exactly what requirements/$1.txt locks, and Windlass itself (editable).
# A .venv made from the same locks is used again; `dev` contains `runtime`.
venv() {
  local interpreter locks
  if ! interpreter=$(find_python); then
    [[ -z ${PYTHON:-} ]] || fail "PYTHON=$PYTHON is not Python 3.11 or newer, or cannot make virtual environments."
    install_packages python3 python3-venv
    interpreter=$(find_python) || fail "Windlass needs Python 3.11 or newer, with venv." \
      "If it is installed under another name, say which: PYTHON=/path/to/python3 $0"
  fi
  locks=$({ echo "$PWD"; "$interpreter" --version; cat requirements/runtime.txt requirements/dev.txt; } | sha256sum)
  if ! grep -qsE "^(dev|$1) ${locks%% *}$" .venv/locks || ! .venv/bin/python -c '' 2>/dev/null; then
    step "Making .venv with $("$interpreter" --version) and the packages that requirements/$1.txt locks"
    [[ ! -L .venv ]] || rm .venv  # `--clear` would empty what a link leads to, which is not ours
    "$interpreter" -m venv --clear .venv
    .venv/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --only-binary :all: \
      --requirement "requirements/$1.txt"
    echo "$1 ${locks%% *}" > .venv/locks
  fi
  if [[ ! -e .venv/bin/windlass || pyproject.toml -nt .venv/bin/windlass ]]; then
    local isolation=()
    [[ -e .venv/bin/hatchling ]] && isolation=(--no-build-isolation)
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps "${isolation[@]}" --editable .
  fi
}
