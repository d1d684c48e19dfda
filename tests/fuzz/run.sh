#!/usr/bin/env bash
# Builds the fuzz targets with clang, AddressSanitizer and UndefinedBehaviorSanitizer into BUILD_ROOT/fuzz and runs each: first over its
# seeds, then over what libFuzzer makes of them. TAP on stdout.
#   EQUIL_FUZZ_SECONDS  seconds for each target (default 20: enough to see that a change broke something plain)
#   EQUIL_FUZZ_SEED     seed of the mutations (default: the day, so that two runs of a day are alike)
#   EQUIL_FUZZ_TARGETS  targets, apart by blanks (default: all)
# New inputs that reach new code are kept in BUILD_ROOT/fuzz/corpus; one that breaks something lies in BUILD_ROOT/fuzz as
# crash-..., and belongs into tests/fuzz/seeds as found-... once it is mended.
set -u
seconds=${EQUIL_FUZZ_SECONDS:-20}
seed=${EQUIL_FUZZ_SEED:-$(date +%Y%m%d)}
folder=$EQUIL_BUILD_ROOT/fuzz
source=$EQUIL_SOURCE_ROOT/tests/fuzz
skip() {
    echo "1..0 # SKIP $1"
    exit 0
}
command -v clang >/dev/null || skip "there is no clang"
probe=$(mktemp -d)
trap 'rm -rf "$probe"' EXIT
echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { return d && n < 0; }' >"$probe/p.c"
clang -fsanitize=fuzzer,address,undefined "$probe/p.c" -o "$probe/p" 2>/dev/null || skip "clang has no libFuzzer (libclang-rt-dev)"

if [ ! -f "$folder/build.ninja" ]; then
    CC=clang meson setup "$folder" "$EQUIL_SOURCE_ROOT" -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false \
        --buildtype=debugoptimized >"$probe/log" 2>&1 || { cat "$probe/log"; exit 1; }
fi
ninja -C "$folder" >"$probe/log" 2>&1 || { cat "$probe/log"; exit 1; }

# Drivers are not opened; what the system's libraries keep is not looked for.
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
run() { # target
    mkdir -p "$folder/corpus/$1"
    local dictionary=()
    [ -f "$source/seeds/$1.dict" ] && dictionary=(-dict="$source/seeds/$1.dict")
    (cd "$folder" && "tests/fuzz/fuzz_$1" -runs=0 -close_fd_mask=3 "$source/seeds/$1" &&
        "tests/fuzz/fuzz_$1" -max_total_time="$seconds" -seed="$seed" -timeout=60 -malloc_limit_mb=512 -rss_limit_mb=2048 \
            -max_len=65536 -close_fd_mask=3 -print_final_stats=1 "${dictionary[@]}" "corpus/$1" "$source/seeds/$1") \
        >"$probe/$1" 2>&1
}
read -r -a targets <<<"${EQUIL_FUZZ_TARGETS:-arguments checkpoint dataset image json safetensors tuning}"
echo "1..${#targets[@]}"
number=0
failed=0
report() { # target, status
    number=$((number + 1))
    local executed covered
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$probe/$1")
    covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$probe/$1" | tail -n 1)
    if [ "$2" -eq 0 ] && [ "${executed:-0}" -gt 0 ]; then
        echo "ok $number - $1: $executed inputs, $covered places, seed $seed"
    else
        echo "not ok $number - $1, seed $seed"
        grep -v '^#[0-9]' "$probe/$1" | tail -n 60 | sed 's/^/# /'
        failed=1
    fi
}
# Two at a time: one after the other, all of them are the longest test there is.
every_other() { # first
    local i
    for ((i = $1; i < ${#targets[@]}; i += 2)); do
        run "${targets[i]}"
        echo $? >"$probe/${targets[i]}.status"
    done
}
every_other 0 &
every_other 1 &
wait
for target in "${targets[@]}"; do
    report "$target" "$(cat "$probe/$target.status")"
done
exit $failed
