#!/bin/sh
# The manual page and --help name the same commands, options and values. manual.sh PATH_OF_EQUIL, with EQUIL_SOURCE_ROOT set
equil=$1
page=$EQUIL_SOURCE_ROOT/src/cli/equil.1
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
number=0

# same NAME: are $folder/help and $folder/page equal, and is there anything in them?
same() {
    number=$((number + 1))
    if [ -s "$folder/help" ] && cmp -s "$folder/help" "$folder/page"; then
        echo "ok $number - $1"
        return
    fi
    echo "not ok $number - $1"
    diff "$folder/help" "$folder/page" | sed 's/^</# --help only:/; s/^>/# manual only:/; s/^[^#]/# &/'
}

# Names of the commands: subsections of the page's COMMANDS, and the list of equil --help.
"$equil" --help | sed -n 's/^  \([a-z]*\)  .*/\1/p' | sort >"$folder/help"
sed -n '/^\.SH COMMANDS/,/^\.SH OPTIONS/s/^\.SS equil \([a-z]*\).*/\1/p' "$page" | sort >"$folder/page"
same "commands"
commands=$(cat "$folder/help")

# Options with the names of their values, one a line: of a command's help, and of its section of the page. What is the same for
# several commands is in the page's OPTIONS.
of_help() {
    "$equil" "$1" --help | sed -n 's/^  --\([a-z0-9-]*\( [^ ]\{1,\}\)\{0,1\}\)\(  .*\)\{0,1\}$/\1/p' | sort
}
of_page() {
    sed -n "/^\.SS equil $1\$/,/^\.S[SH] /p" "$page" | sed -n 's/\\-/-/g; s/ "\(.*\)"$/\1/; s/^\.BI\{0,1\} --//p' | sort
}
for command in $commands; do
    of_help "$command" | grep -vxE 'help|device DEVICE|json' >"$folder/help"
    of_page "$command" >"$folder/page"
    # A command without options of its own has nothing to compare.
    [ -s "$folder/help" ] || [ -s "$folder/page" ] || continue
    same "options of $command"
done

# Which commands have --json without a value.
for command in $commands; do
    of_help "$command" | grep -qx json && echo "$command"
done | sort >"$folder/help"
sed -n '/^\.SH OPTIONS/,/^\.SH EXIT/p' "$page" | sed -n '/^\.B \\-\\-json/{n;p;}' | sed 's/\..*//' | grep -oE '[a-z]+' |
    grep -xF "$commands" | sort >"$folder/page"
same "commands with --json"

echo "1..$number"
