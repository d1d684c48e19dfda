#!/bin/sh
# ./bootstrap where nothing may be installed: help, wrong usage, a system without apt, a user without rights, an OpenCL implementation
# that is missing. bootstrap.sh SOURCE_ROOT
root=$1
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
number=0

# expect NAME EXIT_CODE TEXT: of the last command, whose output is in $folder/output and whose exit code is $got.
expect() {
    number=$((number + 1))
    if [ "$got" -eq "$2" ] && grep -qF -e "$3" "$folder/output"; then
        echo "ok $number - $1"
    else
        echo "not ok $number - $1"
        echo "# exit code $got, expected $2 and \"$3\""
        sed 's/^/# /' "$folder/output"
    fi
}

"$root/bootstrap" --help >"$folder/output" 2>&1
got=$?
expect "help" 0 "./bootstrap COMMAND"
"$root/bootstrap" >"$folder/output" 2>&1
got=$?
expect "no command" 2 "Usage"
"$root/bootstrap" frobnicate >"$folder/output" 2>&1
got=$?
expect "unknown command" 2 "Usage"
"$root/bootstrap" test twice >"$folder/output" 2>&1
got=$?
expect "too many arguments" 1 "takes no arguments"

# A PATH with the few programs that the script needs before it installs anything.
mkdir "$folder/bin"
for program in bash env dirname; do
    ln -s "$(command -v $program)" "$folder/bin/$program"
done
PATH=$folder/bin "$root/bootstrap" demo >"$folder/output" 2>&1
got=$?
expect "another system: the packages are named" 1 "libclblast-dev"
expect "another system: the reason is given" 1 "neither Debian nor Ubuntu"

# apt is there and everything is missing, but the user is not root and has no sudo.
for program in apt-get dpkg-query; do
    printf '#!/bin/sh\nexit 1\n' >"$folder/bin/$program"
    chmod +x "$folder/bin/$program"
done
printf '#!/bin/sh\necho 1000\n' >"$folder/bin/id"
chmod +x "$folder/bin/id"
ln -s "$(command -v sh)" "$folder/bin/sh"
PATH=$folder/bin "$root/bootstrap" demo >"$folder/output" 2>&1
got=$?
expect "no rights: the command is named" 1 "apt-get install --no-install-recommends gcc"

# root, but apt-get fails: no network.
printf '#!/bin/sh\necho 0\n' >"$folder/bin/id"
printf '#!/bin/sh\nexit 0\n' >"$folder/bin/apt-cache"
chmod +x "$folder/bin/apt-cache"
PATH=$folder/bin "$root/bootstrap" demo >"$folder/output" 2>&1
got=$?
expect "no network: said so" 1 "is the network up"

# Everything is installed, and meson builds and tests, but an OpenCL implementation is missing. The script runs as a copy beside a
# build of its own. stand_in NAME TEXT: a program.
stand_in() {
    printf '#!/bin/sh\n%s\n' "$2" >"$folder/bin/$1"
    chmod +x "$folder/bin/$1"
}
for program in grep sed tail tee; do
    ln -s "$(command -v $program)" "$folder/bin/$program"
done
stand_in dpkg-query 'echo "install ok installed"'
stand_in ninja 'exit 0'
stand_in oclgrind 'exit 0'
stand_in meson 'case "$*" in *--list*) echo "equil:op / add"; echo "equil:op / sgd" ;; *) echo "Ok: 5"; echo "Fail: 0" ;; esac'
mkdir -p "$folder/project/build/src/cli"
cp "$root/bootstrap" "$folder/project/"
printf '#!/bin/sh\n[ "$*" != "devices --device rusticl" ]\n' >"$folder/project/build/src/cli/equil"
chmod +x "$folder/project/build/src/cli/equil"
env -u CI PATH="$folder/bin" "$folder/project/bootstrap" test >"$folder/output" 2>&1
got=$?
expect "no rusticl: said so" 0 "there is no rusticl here: its 2 tests are skipped"
expect "no rusticl: counted" 0 "5 passed, 0 failed, 2 skipped"
CI=true PATH=$folder/bin "$folder/project/bootstrap" test >"$folder/output" 2>&1
got=$?
expect "no rusticl, with CI: a failure" 1 "there is no rusticl here, and CI is set"
rm "$folder/bin/oclgrind"
printf '#!/bin/sh\nexit 0\n' >"$folder/project/build/src/cli/equil"
CI=true PATH=$folder/bin "$folder/project/bootstrap" test >"$folder/output" 2>&1
got=$?
expect "no Oclgrind, with CI: a failure" 1 "there is no oclgrind here, and CI is set"
stand_in oclgrind 'exit 0'
CI=true PATH=$folder/bin "$folder/project/bootstrap" test >"$folder/output" 2>&1
got=$?
expect "all are there, with CI" 0 "5 passed, 0 failed, 0 skipped"

echo "1..$number"
