# Sourced by the scripts beside it, with the path of equil as $1: TAP, and running equil. $folder is a new one, which goes at the end.
equil=$1
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
number=0
subcommand=

# result NAME STATUS: a line of TAP; what the last command printed follows a failure.
result() {
    number=$((number + 1))
    if [ "$2" -eq 0 ]; then
        echo "ok $number - $1"
        return
    fi
    echo "not ok $number - $1"
    cat "$folder/check" "$folder/stdout" "$folder/stderr" 2>/dev/null | tail -n 60 | sed 's/^/# /'
}

# skip NAME REASON
skip() {
    number=$((number + 1))
    echo "ok $number - $1 # SKIP $2"
}

# check NAME COMMAND...: the command succeeds.
check() {
    name=$1
    shift
    "$@" >"$folder/check" 2>&1
    result "$name" $?
}

# run EXIT_CODE ARGUMENT...: equil, or its $subcommand, ends with that exit code.
run() {
    wanted=$1
    shift
    "$equil" $subcommand "$@" >"$folder/stdout" 2>"$folder/stderr" </dev/null
    got=$?
    [ "$got" -eq "$wanted" ] && return
    echo "equil $subcommand $*: exit code $got, expected $wanted"
    return 1
}
stdout_has() { grep -qF -e "$1" "$folder/stdout"; }
stderr_has() { grep -qF -e "$1" "$folder/stderr"; }

# expect NAME EXIT_CODE STREAM TEXT ARGUMENT...: equil's exit code, and TEXT on stdout or stderr.
expect() {
    expected=$1 code=$2 stream=$3 text=$4
    shift 4
    run "$code" "$@" >"$folder/check"
    status=$?
    if [ $status -eq 0 ] && ! grep -qF -e "$text" "$folder/$stream" && [ -n "$text" ]; then
        echo "equil $subcommand $*: \"$text\" is not on $stream" >"$folder/check"
        status=1
    fi
    result "$expected" $status
}

finish() { echo "1..$number"; }
