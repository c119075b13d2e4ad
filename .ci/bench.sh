#!/usr/bin/env bash
# The short form of the benchmark, as a guard: fails when a question's ratio to its ceiling is worse by more
# than a third than the one in bench/baseline.json. A question that seems worse is asked three times. About two
# minutes when all is well. After a change that is meant to move a ratio, on a quiet machine:
#     .venv/bin/python -m bench --quick --update
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
exec "${PYTHON:-.venv/bin/python}" -m bench --quick --check "$@"
