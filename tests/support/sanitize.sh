#!/bin/sh
# Builds with sanitizers beside the ordinary build, and runs tests on PoCL there:
#   tests/support/sanitize.sh address|thread BUILD_FOLDER [TEST...]
# address: AddressSanitizer with leaks, and UndefinedBehaviorSanitizer; every test of the suites pocl and limits by default. thread:
# ThreadSanitizer; by default those whose threads share something. `ninja sanitize-KIND` is the same. Other drivers are not even
# loaded: Clover ends the process under AddressSanitizer, and rusticl has races of its own. Suppressions are for drivers, each with its
# reason beside it.
set -eu
kind=${1:?address or thread}
build=${2:?a folder to build in}
shift 2
root=$(cd "$(dirname "$0")/../.." && pwd)
case $kind in
address) sanitizers=address,undefined ;;
thread) sanitizers=thread ;;
*)
    echo "sanitize.sh: $kind is neither address nor thread" >&2
    exit 2
    ;;
esac
vendor=$(ls "${OCL_ICD_VENDORS:-/etc/OpenCL/vendors}"/*pocl*.icd | head -n 1)
[ -n "$vendor" ]
if [ "$kind" = thread ] && [ $# -eq 0 ]; then
    set -- loader session session_devices dataset step trainer
fi
[ -d "$build" ] || meson setup "$build" "$root" -Db_sanitize="$sanitizers" -Db_lundef=false --buildtype=debugoptimized
ninja -C "$build"
export OCL_ICD_VENDORS="$vendor"
export ASAN_OPTIONS=detect_leaks=1
export LSAN_OPTIONS="suppressions=$root/tests/support/lsan.supp:print_suppressions=0"
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS="suppressions=$root/tests/support/tsan.supp:halt_on_error=1:exitcode=66"
exec meson test -C "$build" --suite pocl --suite limits --timeout-multiplier 10 --print-errorlogs "$@"
