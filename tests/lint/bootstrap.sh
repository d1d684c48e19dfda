#!/bin/sh
# ./bootstrap where nothing may be installed: help, wrong usage, a system without apt, a user without rights. bootstrap.sh SOURCE_ROOT
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

echo "1..$number"
