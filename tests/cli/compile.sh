#!/bin/sh
# equil compile from outside: what it compiles is found again, by it and by others, and processes that die do no harm.
# compile.sh PATH_OF_EQUIL
. "$(dirname "$0")/tap.sh"
EQUIL_CACHE_DIR=$folder/equil POCL_CACHE_DIR=$folder/pocl
export EQUIL_CACHE_DIR POCL_CACHE_DIR

# Kernels in machine code, in PoCL's cache.
kernels() { find "$folder/pocl" -name '*.so' 2>/dev/null | wc -l; }
stamps() { find "$folder/equil" -name '*.stamp' 2>/dev/null | wc -l; }
fresh() { rm -rf "$folder/equil" "$folder/pocl" && mkdir "$folder/equil" "$folder/pocl"; }

network="--arch resnet20 --batch 2 --size 8 --classes 3"

check "an unknown network" run 1 compile --arch resnet21
check "is named" stderr_has "resnet21"
check "no network" run 2 compile
check "too many processes" run 2 compile $network --jobs 9
check "memory to save without gradients" run 2 compile $network --recompute
check "is refused" stderr_has "--recompute is for --mode train"
check "an unknown device" run 1 compile $network --device no-such-device
check "is named" stderr_has "no-such-device"

# One process, two, and one whose second is killed at once leave the same kernels.
fresh
check "one process" run 0 compile $network --jobs 1
check "says so" stdout_has ", 1 process"
all=$(kernels)
check "there are kernels" [ "$all" -gt 3 ]
check "and a note that they are there" [ "$(stamps)" -eq 1 ]
fresh
check "two processes" run 0 compile $network --jobs 2
check "say so" stdout_has ", 2 processes"
check "compile the same kernels" [ "$(kernels)" -eq "$all" ]
check "again" run 0 compile $network --jobs 2
check "nothing is compiled twice" [ "$(kernels)" -eq "$all" ]
fresh
"$equil" compile $network --jobs 2 >"$folder/stdout" 2>"$folder/stderr" </dev/null &
process=$!
for _ in $(seq 100); do
    child=$(cat /proc/$process/task/$process/children 2>/dev/null)
    [ -n "$child" ] && break
    sleep 0.01
done
check "there is a second process" [ -n "$child" ]
kill -KILL $child 2>/dev/null
wait $process
code=$?
check "that it is killed is no failure" [ $code -eq 0 ]
check "all kernels are there" [ "$(kernels)" -eq "$all" ]

# What runs the network finds them: only the kernels that measure peaks are new.
check "bench after it" run 0 bench $network --seconds 0.01
check "compiles nothing of the network" [ "$(kernels)" -le $((all + 2)) ]

# A worker by hand: the last kernel, then the end of the numbers.
fresh
printf '\000\000' | "$equil" compile $network --worker >"$folder/stdout" 2>"$folder/stderr"
check "a worker compiles what it is told" [ "$(kernels)" -ge 1 ]
check "and no more" [ "$(kernels)" -lt "$all" ]

# The first run of a network starts processes by itself, and notes that it did.
fresh
check "a first run" run 0 bench $network --seconds 0.01
check "is noted" [ "$(stamps)" -eq $(($(nproc) > 1)) ]
fresh
EQUIL_CACHE=0
export EQUIL_CACHE
check "without a cache" run 0 bench $network --seconds 0.01
check "nothing is noted" [ "$(stamps)" -eq 0 ]
unset EQUIL_CACHE

# PoCL's cache is its own: ours need not be there, but PoCL's.
fresh
EQUIL_CACHE=0 check "PoCL keeps kernels without Equil's cache" run 0 compile $network
check "all of them" [ "$(kernels)" -eq "$all" ]
POCL_KERNEL_CACHE=0 check "without PoCL's cache nothing is compiled" run 1 compile $network
check "as it says" stderr_has "nothing would be kept: POCL_KERNEL_CACHE is not 1"

# Where Equil keeps the programs itself: compiling for nothing is refused; other commands warn once, whatever the number of
# programs; a folder that fills up is an error, and so is one in which kernels have to make room for others.
if [ -e /etc/OpenCL/vendors/rusticl.icd ]; then
    RUSTICL_ENABLE=llvmpipe EQUIL_DEVICE=rusticl
    export RUSTICL_ENABLE EQUIL_DEVICE
    EQUIL_CACHE=0
    export EQUIL_CACHE
    check "compiling for nothing is refused" run 1 compile $network
    check "with the reason" stderr_has "nothing would be kept: EQUIL_CACHE is 0"
    check "and nothing is printed of it" [ ! -s "$folder/stdout" ]
    unset EQUIL_CACHE
    EQUIL_CACHE_DIR=$folder/small EQUIL_CACHE_MIB=1
    export EQUIL_CACHE_MIB
    mkdir "$folder/small"
    truncate -s 880K "$folder/small/0000000000000000.bin"
    touch -d '+1 day' "$folder/small/0000000000000000.bin" # it is used later than all others, so they go before it
    check "a cache without room for all kernels" run 1 compile $network
    check "is named, with the numbers" bash -c "grep -q ' of [0-9]* kernels did not stay in the cache: .* in 1 MiB (EQUIL_CACHE_MIB)' '$folder/stderr'"
    check "and nothing is noted" [ "$(find "$folder/small" -name '*.stamp' | wc -l)" -eq 0 ]
    EQUIL_CACHE_MIB=2
    check "a larger one keeps them" run 0 compile $network
    unset EQUIL_CACHE_MIB
    echo file >"$folder/file"
    EQUIL_CACHE_DIR=$folder/file/cache
    check "no folder to keep kernels in" run 1 compile $network
    check "is named" stderr_has "nothing would be kept: $folder/file"
    check "with errno" stderr_has "Not a directory"
    check "a cache that cannot be written is no failure of other commands" run 0 bench --arch resnet20 --op pool_avg --batch 1 --size 8 --seconds 0.001
    check "and is said once" [ "$(grep -c "cache of compiled kernels" "$folder/stderr")" -eq 1 ]
    if mkdir "$folder/full" && mount -t tmpfs -o size=64k tmpfs "$folder/full" 2>/dev/null; then
        EQUIL_CACHE_DIR=$folder/full
        check "a folder that fills up" run 1 compile $network
        check "is named, too" stderr_has "cache of compiled kernels: $folder/full/"
        umount "$folder/full"
    else
        skip "a folder that fills up" "no right to mount one"
    fi
else
    skip "a cache of Equil's own" "rusticl is not installed"
fi

finish
