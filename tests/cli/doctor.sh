#!/bin/sh
# Makes each situation that `equil doctor` is for and looks for its answer. doctor.sh PATH_OF_EQUIL, with EQUIL_BUILD_ROOT set
equil=$1
breakers=$EQUIL_BUILD_ROOT/tests/cli/doctor
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
number=0
# The path to /etc/OpenCL/vendors/NAME.icd, or to that of a test run with OCL_ICD_VENDORS set.
drivers=/etc/OpenCL/vendors
unset OCL_ICD_VENDORS OPENCL_VENDOR_PATH OCL_ICD_FILENAMES RUSTICL_ENABLE

# run COMMAND...: keeps its exit code and output.
run() {
    "$@" >"$folder/out" 2>"$folder/err" </dev/null
    code=$?
}

# check NAME EXIT_CODE TEXT...: of the last run; the texts in one line, or in one and the lines "->" below it.
check() {
    name=$1 wanted=$2
    shift 2
    number=$((number + 1))
    # A finding with its advice as one line.
    awk '/^ *-> / { text = text $0; next } { if (text) print text; text = $0 } END { print text }' "$folder/out" >"$folder/lines"
    for text in "$@"; do
        grep -F -e "$text" "$folder/lines" >"$folder/next"
        mv "$folder/next" "$folder/lines"
    done
    if [ "$code" -eq "$wanted" ] && [ -s "$folder/lines" ]; then
        echo "ok $number - $name"
        return
    fi
    echo "not ok $number - $name"
    echo "# exit code $code, wanted $wanted, and in one finding: $*"
    sed 's/^/# /' "$folder/out" "$folder/err"
}

skip() {
    number=$((number + 1))
    echo "ok $number - $1 # SKIP $2"
}

# vendors NAME TEXT: a folder with one .icd file of this text; sets OCL_ICD_VENDORS for what follows.
vendors() {
    mkdir -p "$folder/$1"
    printf "$2" >"$folder/$1/test.icd"
    OCL_ICD_VENDORS=$folder/$1
    export OCL_ICD_VENDORS
}

# PoCL alone: nothing is wrong.
mkdir "$folder/root" "$folder/pocl"
cp "$drivers/pocl.icd" "$folder/pocl/"
OCL_ICD_VENDORS=$folder/pocl
export OCL_ICD_VENDORS
run "$equil" doctor --root "$folder/root"
check "nothing wrong: the device computes" 0 "ok " "device" "builds programs and computes; it is the one that Equil uses"
check "nothing wrong: the loader" 0 "ok " "loader" "libOpenCL.so.1"
check "nothing wrong: the driver" 0 "ok " "driver" "$folder/pocl/pocl.icd" "loads, 1 platform"
check "nothing wrong: the end" 0 "0 problems"
run "$equil" doctor --root "$folder/root" --json
number=$((number + 1))
if python3 -c '
import json, sys
d = json.load(open(sys.argv[1]))
assert d["problems"] == 0 and len(d["findings"]) >= 5
assert all(f["verdict"] in ("ok", "note", "problem") and f["subject"] and f["text"] and isinstance(f["advice"], list) for f in d["findings"])
' "$folder/out"; then
    echo "ok $number - JSON"
else
    echo "not ok $number - JSON"
    sed 's/^/# /' "$folder/out"
fi
run "$equil" doctor --root "$folder/root" --device no-such-device
check "a device that is not there" 1 "problem" "device" "none of the 1 devices" "equil devices"

# The same driver twice.
cp "$drivers/pocl.icd" "$folder/pocl/twice.icd"
run "$equil" doctor --root "$folder/root"
check "a driver named twice" 0 "note" "driver" "twice.icd both name" "remove one of the two"
rm "$folder/pocl/twice.icd"

# Drivers that are none.
mkdir "$folder/empty"
run env OCL_ICD_VENDORS=$folder/empty "$equil" doctor --root "$folder/root"
check "no driver at all" 1 "problem" "driver" "$folder/empty has no .icd file" "unset OCL_ICD_VENDORS" "apt-get install pocl-opencl-icd"
check "no platform, no device" 1 "problem" "platform" "0 platforms and no device"
run env OCL_ICD_VENDORS=$folder/not/there "$equil" doctor --root "$folder/root"
check "a folder of drivers that is not there" 1 "problem" "driver" "$folder/not/there is not there" "unset OCL_ICD_VENDORS"
run env OCL_ICD_VENDORS='' "$equil" doctor --root "$folder/root"
check "no folder of drivers" 1 "problem" "driver" "$folder/root/etc/OpenCL/vendors is not there" "dnf install pocl" "pacman -S pocl"
vendors missing 'libno-such-driver.so.1\n'
run "$equil" doctor --root "$folder/root"
check "a library that is missing" 1 "problem" "driver" "libno-such-driver.so.1, which cannot be loaded" "sudo rm $folder/missing/test.icd" \
    "dpkg -S $folder/missing/test.icd"
echo "this is no library" >"$folder/text.so"
vendors text "$folder/text.so\n"
run "$equil" doctor --root "$folder/root"
check "a file that is no library" 1 "problem" "driver" "$folder/text.so, which cannot be loaded" "no library for this machine"
vendors other 'libm.so.6\n'
run "$equil" doctor --root "$folder/root"
check "a library that is no driver" 1 "problem" "driver" "libm.so.6, which is no OpenCL driver" "clGetExtensionFunctionAddress"
vendors return 'libpocl.so.2\r\n'
run "$equil" doctor --root "$folder/root"
check "a carriage return in the name" 1 "problem" "driver" "a carriage return behind \"libpocl.so.2\"" "echo libpocl.so.2 | sudo tee"
vendors nothing ''
run "$equil" doctor --root "$folder/root"
check "an empty .icd file" 1 "problem" "driver" "test.icd names no library" "it is empty"
vendors crash "$breakers/libcrash.so\n"
run "$equil" doctor --root "$folder/root"
check "a driver that crashes when it is loaded" 1 "problem" "driver" "stopped by signal 11" "no such chip" "take its .icd file away"
check "a crash does not end the doctor" 1 "problems, "

# A loader that is too old. With all symbols bound at the start (Ubuntu) the program itself does not start.
mkdir "$folder/old"
cp "$breakers/libold_loader.so" "$folder/old/libOpenCL.so.1"
run env LD_LIBRARY_PATH="$folder/old" "$equil" --version
if [ "$code" -eq 0 ]; then
    run env LD_LIBRARY_PATH="$folder/old" "$equil" doctor --root "$folder/root"
    check "a loader that is too old" 1 "problem" "loader" "libOpenCL.so.1 is too old" "LD_LIBRARY_PATH" "ocl-icd-libopencl1"
else
    skip "a loader that is too old" "programs do not start with it here"
fi

# Caches. Root may write anywhere, but not below a file.
OCL_ICD_VENDORS=$folder/pocl
run env EQUIL_CACHE_DIR=$folder/text.so/cache "$equil" doctor --root "$folder/root"
check "a cache that cannot be written" 1 "problem" "cache" "$folder/text.so/cache (Equil's compiled kernels) cannot be written: Not a directory" \
    "set EQUIL_CACHE_DIR"
run env POCL_CACHE_DIR=/proc/no/such "$equil" doctor --root "$folder/root"
check "PoCL's cache cannot be written" 1 "problem" "cache" "/proc/no/such (PoCL's compiled kernels) cannot be written" "set POCL_CACHE_DIR"
run env EQUIL_CACHE_DIR=$folder/made/for/it "$equil" doctor --root "$folder/root"
check "a cache that is still to be made" 0 "ok " "cache" "$folder/made/for/it (Equil's compiled kernels) can be written"
number=$((number + 1))
if [ -e "$folder/made" ]; then
    echo "not ok $number - the doctor leaves nothing behind"
else
    echo "ok $number - the doctor leaves nothing behind"
fi
run env EQUIL_CACHE=0 "$equil" doctor --root "$folder/root"
check "no cache" 0 "note" "cache" "compiled kernels are not kept" "set EQUIL_CACHE_DIR"

# Settings at fault, not the driver.
for setting in EQUIL_CONV=abc EQUIL_CACHE=off EQUIL_CACHE_MIB=abc EQUIL_TUNING=/nonexist EQUIL_BUILD_OPTIONS=-foo EQUIL_PRECISION=quux EQUIL_WINOGRAD=2; do
    run env "$setting" "$equil" doctor --root "$folder/root"
    check "$setting" 1 "-> ${setting%=*} is '${setting#*=}', and the device computes without it: unset it"
    number=$((number + 1))
    if grep -q "update its driver" "$folder/out"; then
        echo "not ok $number - $setting is not blamed on the driver"
    else
        echo "ok $number - $setting is not blamed on the driver"
    fi
done
run env EQUIL_CONV=abc EQUIL_CACHE_MIB=abc EQUIL_TUNING=0 "$equil" doctor --root "$folder/root"
check "two settings" 1 "problem" "device" "EQUIL_CONV is 'abc'" "EQUIL_CACHE_MIB is 'abc', and the device computes without this and the others"
run env EQUIL_THREADS=x "$equil" doctor --root "$folder/root"
check "EQUIL_THREADS=x" 1 "problem" "threads" "EQUIL_THREADS=x: 1 to 256" "unset EQUIL_THREADS"
run "$equil" doctor --root "$folder/no/root"
cp "$folder/err" "$folder/out"
check "a root that is not there" 1 "equil: --root $folder/no/root: No such file or directory"

# GPUs: folders as the kernel has them.
pci=$folder/root/sys/bus/pci/devices
mkdir -p "$pci/0000:03:00.0" "$pci/0000:00:1f.0" "$folder/root/drivers/amdgpu"
echo 0x030000 >"$pci/0000:03:00.0/class"
echo 0x1002 >"$pci/0000:03:00.0/vendor"
ln -s "$folder/root/drivers/amdgpu" "$pci/0000:03:00.0/driver"
echo 0x060100 >"$pci/0000:00:1f.0/class"
echo 0x8086 >"$pci/0000:00:1f.0/vendor"
run "$equil" doctor --root "$folder/root"
check "a GPU without an OpenCL driver" 1 "note" "gpu" "AMD at PCI 0000:03:00.0, kernel driver amdgpu: no OpenCL driver has it" \
    "RUSTICL_ENABLE=radeonsi"
check "a GPU without its nodes" 1 "problem" "node" "$folder/root/dev/dri is not there" "docker run --device /dev/dri"
check "other PCI devices are no GPUs" 1 "1 problem, 1 note"
mkdir -p "$folder/root/dev/dri"
: >"$folder/root/dev/dri/renderD128"
: >"$folder/root/dev/kfd"
run "$equil" doctor --root "$folder/root"
check "nodes that can be opened" 0 "ok " "node" "$folder/root/dev/dri/renderD128 can be opened"
chgrp video "$folder/root/dev/dri/renderD128" 2>/dev/null
chmod 060 "$folder/root/dev/dri/renderD128"
chmod 600 "$folder/root/dev/kfd"
if [ "$(id -u)" -ne 0 ]; then
    chmod 000 "$folder/root/dev/kfd"
    run "$equil" doctor --root "$folder/root"
elif command -v setpriv >/dev/null && setpriv --reuid=65534 --regid=65534 --clear-groups "$equil" --version >/dev/null 2>&1; then
    run setpriv --reuid=65534 --regid=65534 --clear-groups "$equil" doctor --root "$folder/root"
else
    code=none
fi
if [ "$code" = none ]; then
    skip "a node that this user may not open" "no other user can run the program"
    skip "a node that its group may not open" "no other user can run the program"
else
    check "a node that its group may not open" 1 "problem" "node" "$folder/root/dev/kfd (mode 0" "cannot be opened by user" "render" "chmod a+rw"
    if [ "$(stat -c %G "$folder/root/dev/dri/renderD128")" = video ]; then
        check "a node that this user may not open" 1 "problem" "node" "renderD128 (mode 0060" "sudo usermod -aG video"
    else
        skip "a node that this user may not open" "this user cannot give it to the group"
    fi
fi
chmod 600 "$folder/root/dev/dri/renderD128" "$folder/root/dev/kfd"

# rusticl: no device until it is told.
if [ -e "$drivers/rusticl.icd" ]; then
    mkdir "$folder/rusticl"
    cp "$drivers/rusticl.icd" "$folder/rusticl/"
    OCL_ICD_VENDORS=$folder/rusticl
    run "$equil" doctor --root "$folder/root"
    check "rusticl that is not enabled, with a GPU" 1 "problem" "rusticl" "RUSTICL_ENABLE is not set" "export RUSTICL_ENABLE=radeonsi"
    rm -r "$pci"
    run "$equil" doctor --root "$folder/root"
    check "rusticl that is not enabled" 1 "problem" "rusticl" "RUSTICL_ENABLE is not set" "export RUSTICL_ENABLE=llvmpipe"
    run env RUSTICL_ENABLE=no-such-driver "$equil" doctor --root "$folder/root"
    check "rusticl that is enabled for nothing" 1 "problem" "rusticl" "RUSTICL_ENABLE is 'no-such-driver', which finds no hardware"
    run env EQUIL_DEVICE=rusticl RUSTICL_ENABLE=llvmpipe "$equil" doctor --root "$folder/root"
    check "rusticl that is enabled" 0 "ok " "rusticl" "has 1 device, RUSTICL_ENABLE is 'llvmpipe'"
else
    skip "rusticl" "it is not installed"
fi

echo "1..$number"
