#!/bin/sh
# The command line from outside: help, usage errors, a device that is not there. usage.sh PATH_OF_EQUIL
. "$(dirname "$0")/tap.sh"

# expect_silent NAME STREAM: nothing was written there by the last command.
expect_silent() { check "$1" [ ! -s "$folder/$2" ]; }

expect "help" 0 stdout "Usage: equil COMMAND" --help
expect_silent "help is not an error" stderr
check "help has every exit code" stdout_has "0 done, 1 failed, 2 wrong usage, 3 a comparison found something slower, 130 "
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
check "devices --json is JSON with one chosen device" python3 -c \
    'import json, sys; devices = json.load(open(sys.argv[1]))["devices"]; assert sum(d["is_chosen"] for d in devices) == 1' "$folder/stdout"
expect "devices --device by name" 0 stdout "Portable Computing Language" devices --device POCL
expect "a device that is not there" 1 stderr "no-such-device" devices --device no-such-device
EQUIL_DEVICE=no-such-name expect "EQUIL_DEVICE that is not there" 1 stderr "no usable device matches 'no-such-name', of EQUIL_DEVICE; there are: 0: " devices
if [ -w /dev/full ]; then
    check "a full disk is an error" sh -c "! '$equil' --help >/dev/full"
fi

# Trained numbers: torchvision's counts of its ResNets, and PyTorch's of the published CE-ResNet-50. Each is counted in one layer.
for network in resnet18=11689512 resnet34=21797672 resnet50=25557032 resnet101=44549160 ce-resnet50=29331926; do
    expect "info counts the parameters of ${network%=*}" 0 stdout "\"parameters\": ${network#*=}," info --arch "${network%=*}" --json
    check "the layers of ${network%=*} have them" python3 -c \
        'import json, sys; info = json.load(open(sys.argv[1])); assert sum(l["parameters"] for l in info["layers"]) == int(sys.argv[2])' \
        "$folder/stdout" "${network#*=}"
done

# info plans for the device that is named, by either way, and in the precision that is asked for.
unset EQUIL_DEVICE
expect "info without a device" 0 stdout "precision           fp32" info --arch resnet20
check "has no tuning" stdout_has "tuning              none"
EQUIL_DEVICE=no-such-name expect "info with EQUIL_DEVICE" 1 stderr "no usable device matches 'no-such-name'" info --arch resnet20
EQUIL_PRECISION=bf16 expect "info with EQUIL_PRECISION" 0 stdout "precision           bf16 emulated" info --arch resnet20
EQUIL_PRECISION=quux expect "info with a precision that there is not" 1 stderr "EQUIL_PRECISION: precision 'quux': it must be fp32, tf32, fp16 or bf16" info --arch resnet20
expect "info of batches that cannot be trained" 0 stdout "training            does not take such batches" info --arch ce-resnet50 --size 32 --batch 1
check "as JSON" run 0 info --arch ce-resnet50 --size 32 --batch 1 --json
check "has evaluation's memory alone" python3 -c \
    'import json, sys; info = json.load(open(sys.argv[1])); assert info["inference_bytes"] > info["weight_bytes"] > 0 and info["training_bytes"] is None and info["recompute_flops"] is None' \
    "$folder/stdout"
check "info --help says what it does without one" run 0 info --help
check "as it is" stdout_has "(default: \$EQUIL_DEVICE, else none is opened)"
expect "a network of a file has its own options" 2 stderr "--classes does not go with --weights" info --weights x --classes 77 --act elu

# A platform without a device: rusticl until it is told.
if [ -e /etc/OpenCL/vendors/rusticl.icd ]; then
    mkdir "$folder/rusticl"
    cp /etc/OpenCL/vendors/rusticl.icd "$folder/rusticl/"
    OCL_ICD_VENDORS=$folder/rusticl
    export OCL_ICD_VENDORS
    unset RUSTICL_ENABLE
    expect "a driver without a device: what is there" 1 stderr "no OpenCL device: 1 platform without one, rusticl" devices
    check "and who knows more" stderr_has "; 'equil doctor' looks for the reason"
    check "not what to install" sh -c "! grep -q install '$folder/stderr'"
    expect "other commands, too" 1 stderr "no OpenCL device: 1 platform without one, rusticl" bench --arch resnet20
else
    skip "a driver without a device" "rusticl is not installed"
fi

# No platform at all: the loader finds an empty folder.
mkdir "$folder/empty"
OCL_ICD_VENDORS="$folder/empty/" OPENCL_VENDOR_PATH="$folder/empty/"
export OCL_ICD_VENDORS OPENCL_VENDOR_PATH
expect "no device: what to install" 1 stderr "apt-get install pocl-opencl-icd" devices

finish
