#!/bin/sh
# Runs a test program under Valgrind and fails unless it found nothing, memory that nothing points to any more among it. For
# programs that open no device: drivers keep what they have, and their machine code is not for it. No suppressions.
set -u
if ! command -v valgrind >/dev/null; then
    echo "1..0 # SKIP valgrind is not installed"
    exit 0
fi
# One process, so that what a test leaves behind is looked for at the end of it.
CK_FORK=no
export CK_FORK
exec valgrind --quiet --error-exitcode=9 --leak-check=full --show-leak-kinds=definite,possible \
    --errors-for-leak-kinds=definite,possible "$@"
