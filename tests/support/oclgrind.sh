#!/bin/sh
# Runs a test program twice under Oclgrind, once looking for races and once for uninitialised reads, and fails unless it found
# nothing: Oclgrind itself exits 0 always, so its log has to be empty. TAP of the first run passes through.
set -u
if ! command -v oclgrind >/dev/null; then
    echo "1..0 # SKIP oclgrind is not installed"
    exit 0
fi
# The two runs compile with different options, which Equil's cache of compiled kernels cannot know.
EQUIL_CACHE=0
export EQUIL_CACHE
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
status=0

oclgrind --data-races --log "$log" "$@" || status=1
if [ -s "$log" ]; then
    echo "Bail out! oclgrind --data-races found: $(head -n 5 "$log" | tr '\n' ' ')"
    cat "$log" >&2
    exit 1
fi

oclgrind --uninitialized --build-options -cl-opt-disable --log "$log" "$@" >/dev/null || status=1
if [ -s "$log" ]; then
    echo "Bail out! oclgrind --uninitialized found: $(head -n 5 "$log" | tr '\n' ' ')"
    cat "$log" >&2
    exit 1
fi
exit $status
