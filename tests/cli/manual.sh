#!/bin/sh
# The manual page and --help name the same commands and options. manual.sh PATH_OF_EQUIL, with EQUIL_SOURCE_ROOT set
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
for command in $commands; do
    "$equil" "$command" --help | sed -n 's/^  --\([a-z0-9-]*\).*/\1/p' | grep -vxE 'help|device|json' | sort >"$folder/help"
    sed -n "/^\.SS equil $command\$/,/^\.S[SH] /p" "$page" | sed -n 's/\\-/-/g; s/^\.BI\{0,1\} --\([a-z0-9-]*\).*/\1/p' |
        grep -vx json | sort >"$folder/page"
    # A command without options of its own has nothing to compare.
    [ -s "$folder/help" ] || [ -s "$folder/page" ] || continue
    same "options of $command"
done

echo "1..$number"
