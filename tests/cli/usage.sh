#!/bin/sh
# The command line from outside: help, usage errors, a device that is not there. usage.sh PATH_OF_EQUIL
equil=$1
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
number=0

# expect NAME EXIT_CODE STREAM TEXT ARGUMENT...: the exit code, and TEXT on stdout or stderr.
expect() {
    name=$1 code=$2 stream=$3 text=$4
    shift 4
    number=$((number + 1))
    "$equil" "$@" >"$folder/stdout" 2>"$folder/stderr" </dev/null
    got=$?
    if [ "$got" -eq "$code" ] && grep -qF -e "$text" "$folder/$stream"; then
        echo "ok $number - $name"
        return
    fi
    echo "not ok $number - $name"
    echo "# equil $*: exit code $got, expected $code and \"$text\" on $stream"
    sed 's/^/# /' "$folder/stdout" "$folder/stderr"
}

# expect_silent NAME STREAM: nothing was written there by the last command.
expect_silent() {
    number=$((number + 1))
    if [ -s "$folder/$2" ]; then
        echo "not ok $number - $1"
        sed 's/^/# /' "$folder/$2"
    else
        echo "ok $number - $1"
    fi
}

expect "help" 0 stdout "Usage: equil COMMAND" --help
expect_silent "help is not an error" stderr
expect "version" 0 stdout "equil 0." --version
expect "no command" 2 stderr "a command is missing"
expect_silent "usage errors go to stderr" stdout
expect "unknown command" 2 stderr "unknown command \"frobnicate\"" frobnicate
expect "unknown first option" 2 stderr "unknown option \"--frobnicate\"" --frobnicate

commands=$("$equil" --help | sed -n 's/^  \([a-z]*\)  .*/\1/p')
for command in $commands; do
    expect "$command --help" 0 stdout "Usage: equil $command [options]" "$command" --help
    expect "$command has --device" 0 stdout "--device DEVICE" "$command" --help
    expect "$command with an unknown option" 2 stderr "equil $command: unknown option --frobnicate" "$command" --frobnicate
done

expect "devices lists the chosen one" 0 stdout "* " devices
expect "devices as JSON" 0 stdout '"is_chosen": true' devices --json
number=$((number + 1))
if python3 -c 'import json, sys; devices = json.load(open(sys.argv[1]))["devices"]; assert sum(d["is_chosen"] for d in devices) == 1' \
    "$folder/stdout"; then
    echo "ok $number - devices --json is JSON with one chosen device"
else
    echo "not ok $number - devices --json is JSON with one chosen device"
fi
expect "devices --device by name" 0 stdout "Portable Computing Language" devices --device POCL
expect "a device that is not there" 1 stderr "no-such-device" devices --device no-such-device
if [ -w /dev/full ]; then
    number=$((number + 1))
    if "$equil" --help >/dev/full 2>"$folder/stderr"; then
        echo "not ok $number - a full disk is an error"
    else
        echo "ok $number - a full disk is an error"
    fi
fi

# No platform at all: the loader finds an empty folder.
mkdir "$folder/empty"
OCL_ICD_VENDORS="$folder/empty/" OPENCL_VENDOR_PATH="$folder/empty/"
export OCL_ICD_VENDORS OPENCL_VENDOR_PATH
expect "no device: what to install" 1 stderr "apt-get install pocl-opencl-icd" devices

echo "1..$number"
