#!/bin/sh
# equil tune from outside: it measures, keeps, goes on where it was stopped, and other commands read its file. tune.sh PATH_OF_EQUIL
. "$(dirname "$0")/tap.sh"
EQUIL_TUNING=
export EQUIL_TUNING
value() { sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" "$folder/stdout"; } # of the JSON that was printed
choices() { cat "$1" 2>/dev/null | grep -c ' = '; }

tune="tune --arch resnet20 --batch 2 --size 8 --op conv2d"
file=$folder/new/tuning.txt

# A time that is over after the first choice.
check "stops in time" run 0 $tune --out "$file" --seconds 0.000001
check "says that it is not complete" stdout_has "not complete: the same command goes on"
check "measures from an empty file" run 0 $tune --out "$file" --seconds 1
candidates=$(sed -n 's/.* conv1 .* candidate 2 of \([0-9]*\)$/\1/p' "$folder/stderr")
first=$(choices "$file")
check "keeps what it measured" [ "$first" -ge 1 ]
check "has a header" grep -q '^equil-tuning 1$' "$file"
check "names the device" grep -q '^device: ' "$file"

# Ctrl-C after the next choice.
"$equil" $tune --out "$file" >"$folder/stdout" 2>"$folder/stderr" &
process=$!
for _ in $(seq 600); do
    [ "$(choices "$file")" -gt "$first" ] || ! kill -0 $process 2>/dev/null && break
    sleep 0.1
done
kill -TERM $process 2>/dev/null
wait $process
code=$?
check "Ctrl-C ends it with 130" [ $code -eq 130 ]
check "says how to go on" stderr_has "the same command goes on"
stopped=$(choices "$file")
check "keeps what it had" [ "$stopped" -gt "$first" ]
check "nothing is left beside the file" [ "$(ls "$folder/new")" = tuning.txt ]

check "goes on to the end" run 0 $tune --out "$file"
all=$(choices "$file")
check "has more than before" [ "$all" -gt "$stopped" ]
cp "$file" "$folder/before"
bytes=$folder/$(printf 'tu\377')
cp "$file" "$bytes"
check "a file's name that is not UTF-8, in JSON" run 0 $tune --out "$bytes" --json
check "has it with U+FFFD" stdout_has "$(printf 'tu\357\277\275"')"
check "measures nothing twice" run 0 $tune --out "$file" --json
check "says that all is known" stdout_has "\"known\": $all"
check "and nothing was measured" stdout_has '"measured": 0'
check "leaves the file" cmp -s "$file" "$folder/before"
check "another batch" run 0 tune --arch resnet20 --batch 3 --size 8 --op conv2d --out "$file" --json
check "has the same kernels" stdout_has '"measured": 0'

# A choice of a version that chose between other things has another number of values.
awk '!done && / = [0-9]+ [0-9]+ [0-9]+/ && /^conv2d_vector / { sub(/ = [0-9]+ [0-9]+ [0-9]+/, " = 1 7 2 0"); done = 1 } 1' \
    "$file" >"$folder/other"
check "one choice has four values" [ "$(grep -c ' = 1 7 2 0' "$folder/other")" -eq 1 ]
check "a choice of another version" run 0 $tune --out "$folder/other" --json
check "is measured again" stdout_has '"measured": 1'
check "the others are known" stdout_has "\"known\": $((all - 1))"

# Of another driver: measured again, one after the other.
sed 's/^driver: .*/driver: 2.0-old/' "$folder/before" >"$folder/driver"
check "another driver's choices" run 0 $tune --out "$folder/driver" --seconds 0.1 --json
check "are not known" stdout_has '"known": 0'
measured=$(value measured)
check "but measured" [ "$measured" -ge 1 ]
check "the others are marked" [ "$(grep -c '; with another driver$' "$folder/driver")" -eq $((all - measured)) ]
check "and the next run" run 0 $tune --out "$folder/driver" --seconds 0.000001 --json
check "knows which" stdout_has "\"known\": $measured"
check "again begins anew" run 0 $tune --out "$folder/driver" --seconds 0.000001 --again
check "as it says" stdout_has "not complete: the same command begins anew"

# The default is what would be taken, here one that the model does not know.
sed -nE '1p; s/^(conv2d_vector block=1x.*) = [0-9 ]+ *#.*/\1 = 1 1 0/p' "$folder/before" >"$folder/slow"
check "one choice" [ "$(choices "$folder/slow")" -eq 1 ]
EQUIL_TUNING=$folder/slow
check "of another file" run 0 $tune --out "$folder/fast" --seconds 0.1
check "is a candidate" stderr_has ": candidate 2 of $((candidates + 1))"
check "as the default" grep -qE '^conv2d_vector block=1x[^#]*( = 1 1 0  # .*, the default|#.*, default [0-9.]* ms)$' "$folder/fast"
EQUIL_TUNING=

# Values of another file that the op does not take are neither measured nor kept under the name of the default.
sed 's/ = 1 1 0$/ = 99 99 99/' "$folder/slow" >"$folder/wrong"
EQUIL_TUNING=$folder/wrong
check "wrong values of another file" run 0 $tune --out "$folder/right" --seconds 0.1
check "are told" stderr_has " = 99 99 99', which cannot be: the default is taken"
check "are no candidate" stderr_has ": candidate 2 of $candidates"
check "and not kept" bash -c "grep -q '^conv2d_vector block=1x' '$folder/right' && ! grep -q 99 '$folder/right'"
EQUIL_TUNING=

# Lines for several devices would be lost.
{ cat "$folder/before"; printf '[family H200]\nconv2d_vector precious = 1 1 0\n'; } >"$folder/sections"
cp "$folder/sections" "$folder/sections.before"
check "a file with sections is not extended" run 1 $tune --out "$folder/sections"
check "as it says" stderr_has "sections has [sections] for several devices"
check "and stays as it was" cmp -s "$folder/sections" "$folder/sections.before"

# What evaluation looks up, with its filters prepared, is what was tuned.
check "evaluation's algorithms are among them" grep -q '^conv2d_algorithm .* prepared = ' "$file"
for algorithm in 1 3; do
    sed -E "s/^(conv2d_algorithm .* prepared =) [0-9]+/\\1 $algorithm/" "$file" >"$folder/algorithm$algorithm"
    EQUIL_TUNING=$folder/algorithm$algorithm "$equil" bench --arch resnet20 --batch 2 --size 8 --seconds 0.1 >"$folder/bench$algorithm" 2>&1
done
check "direct where the file says so" grep -q conv2d_vector "$folder/bench1"
check "and Winograd nowhere" bash -c "! grep -q winograd '$folder/bench1'"
check "Winograd where the file says so" grep -q conv2d_winograd "$folder/bench3"

# The file is used where it is named, and refused where it is broken.
EQUIL_TUNING=$file
check "a tuned network is planned" run 0 info --arch resnet20 --batch 2 --size 8 --device pocl
check "and its tuning named" stdout_has "$file"
echo "nonsense" >>"$file"
check "a broken file is refused" run 1 info --arch resnet20 --device pocl
check "with its line" stderr_has "tuning.txt:$(wc -l <"$file")"
sed -E '/nonsense/d; s/^device: .*/device: Another/' "$file" >"$folder/foreign"
EQUIL_TUNING=
check "another device's file is not extended" run 1 $tune --out "$folder/foreign"
check "both are named" stderr_has "foreign was measured on Another, this is"
check "and it stays as it was" grep -q '^device: Another$' "$folder/foreign"
EQUIL_TUNING=$folder/named
sed -E '/nonsense/d' "$file" >"$folder/named"
check "without a file the one that is named is extended" run 0 $tune --seconds 0.000001 --json
check "by its name" stdout_has "$folder/named"
EQUIL_TUNING=0
check "0 is nothing to extend" run 1 $tune
check "as it says" stderr_has "EQUIL_TUNING is 0: nothing would read the results"
check "0 is no tuning" run 0 info --arch resnet20 --device pocl
check "a broken file is not overwritten" run 1 $tune --out "$file"
check "an op without choices is named" run 1 tune --arch resnet20 --batch 2 --size 8 --op sgd --out "$folder/other"
check "with those that have some" stderr_has "no call of sgd has choices; these have: conv2d"

# Candidates that the driver crashes on, when it compiles one and when it runs another, and one that it hangs on: of the first layer,
# the only one whose input is not in blocks.
mkdir "$folder/break"
EQUIL_WINOGRAD=0 BREAK_FOLDER=$folder/break BREAK_PROGRAM="-DBI=1 "
export EQUIL_WINOGRAD BREAK_FOLDER BREAK_PROGRAM
tool=$equil
broken() { env LD_PRELOAD="$EQUIL_BUILD_ROOT/tests/cli/doctor/libdriver.so" "$tool" "$@"; }
equil=broken
attempts() { grep -c "$1" "$folder/break/attempts"; }
one="$tune --out $folder/left --seconds 1 --limit 10"
check "is not ended by a driver that breaks" run 0 $one
check "says that one crashed" stderr_has "is rejected: left out: trying it was stopped by signal 6"
check "says that one hung" stderr_has "is rejected: left out: trying it did not end within 10 s"
check "measures the others" grep -q '^conv2d_vector block=1x' "$folder/left"
check "one was killed, and tried again" [ "$(attempts kill)" -eq 1 ]
check "and is not left out" [ "$(grep -c 'signal 9' "$folder/left.failed")" -eq 0 ]
check "keeps what it left out" grep -q '^conv2d_vector block=1x.* failed 1 = .*# was stopped by signal 6' "$folder/left.failed"
check "and that which hung" grep -q '^conv2d_vector block=1x.* failed [0-9]* = .*# did not end within 10 s' "$folder/left.failed"
crashes=$(attempts crash)
runs=$(attempts run)
check "one crashed when it ran" [ "$runs" -ge 1 ]
check "a crash for each" [ "$((crashes + runs))" -eq "$(grep -c 'block=1x.*signal 6' "$folder/left.failed")" ]
check "the next run" run 0 $one --again
check "leaves them out" stderr_has "is rejected: left out, as before: trying it was stopped by signal 6"
check "and does not try them" [ "$(attempts crash)" -eq "$crashes" ]
check "nor what crashed when it ran" [ "$(attempts run)" -eq "$runs" ]
check "nor what hung" [ "$(attempts hang)" -eq 1 ]
sed -i 's/^driver: .*/driver: another/' "$folder/left.failed"
check "with another driver" run 0 $one --again
check "they are tried again" [ "$(attempts crash)" -gt "$crashes" ]
check "after --, too, another process tries them" run 0 $tune --out "$folder/other" --seconds 1 --limit 10 --again --
check "as nothing else says" bash -c "! grep -q 'could be started' '$folder/stderr'"

finish
