#!/bin/sh
# equil verify from outside: it is right about PoCL, wrong where programs are compiled so that they compute something else, and says
# where a driver crashed or hung. verify.sh PATH_OF_EQUIL, with EQUIL_BUILD_ROOT set
. "$(dirname "$0")/tap.sh"

# stdout_matches EXPRESSION: a regular one.
stdout_matches() { grep -qE -e "$1" "$folder/stdout"; }

# json FILE EXPRESSION: is it true of the document d?
json() { python3 -c 'import json, math, sys; d = json.load(open(sys.argv[1])); assert eval(sys.argv[2]), d' "$1" "$2"; }

check "PoCL computes what it should" run 0 verify --quick --json "$folder/right.json"
check "in the table: the heading" stdout_matches '^op  *kernels  *blocks  *cases  *worst error  *of allowed$'
check "a row" stdout_matches '^conv2d  *(vector|simt)  *[0-9]+  *[0-9]+  *[0-9.e-]+  *0\.[0-9]+  ok$'
check "the network" stdout_matches '^network_repeated .* ok$'
check "the verdict" stdout_matches '^right: [0-9]+ cases of [0-9]+ suites, in '
check "nothing is wrong" sh -c "! grep -q WRONG '$folder/stdout'"
check "the file says so" json "$folder/right.json" \
    'd["format"] == "equil-verify" and d["verdict"] == "right" and d["mode"] == "quick" and not d["failures"] and not d["crashes"]'
check "and on what" json "$folder/right.json" \
    'd["device"]["platform"] == "Portable Computing Language" and d["device"]["driver"] and d["device"]["limits"]["local_bytes"] > 0'
check "of which version" json "$folder/right.json" '"equil " + d["equil"]["version"] == "'"$("$equil" --version)"'" and d["equil"]["commit"]'
check "rows have errors within what is allowed" json "$folder/right.json" \
    'len(d["rows"]) > 20 and all(r["cases"] > 0 and 0 <= r["of_allowed"] <= 1 for r in d["rows"]) and sum(r["worst_error"] > 0 for r in d["rows"]) > 15'
check "every op is in it" json "$folder/right.json" \
    'not {"conv2d", "conv2d_data_grad", "conv2d_weight_grad", "conv2d_fused", "unit", "pool_max", "linear_grad", "softmax_xent", "sgd", "network_gradients", "network_repeated"} - {r["op"] for r in d["rows"]}'

# With this option compilers may take it that there is no NaN: a device that computes wrongly.
EQUIL_BUILD_OPTIONS=-cl-fast-relaxed-math
export EQUIL_BUILD_OPTIONS
check "a device that computes wrongly" run 1 verify --op pool_max --json "$folder/wrong.json"
check "its row" stdout_matches '^pool_max .* [0-9]+ WRONG$'
check "its failure" stdout_matches '^pool_max, NaN \((vector|simt), block [0-9]+\): place of the maximum: \[0, 0, 0, [0-9]\] is [0-9]+, not [0-9]+'
check "its verdict" stdout_matches '^WRONG: [0-9]+ failures in [0-9]+ cases'
check "the file has the failure" json "$folder/wrong.json" \
    'd["verdict"] == "wrong" and any(f["op"] == "pool_max" and f["case"] == "NaN" and f["got"] != f["want"] and f["wrong"] > 0 and len(f["index"]) == 4 for f in d["failures"])'
check "and why" json "$folder/wrong.json" 'd["environment"]["EQUIL_BUILD_OPTIONS"] == "-cl-fast-relaxed-math"'
check "the other op of the suite was checked" json "$folder/wrong.json" \
    'any(r["op"] == "pool_max_grad" and r["failures"] == 0 and r["cases"] > 0 for r in d["rows"])'
EQUIL_BUILD_OPTIONS=-no-such-option
check "programs that are not compiled" run 1 verify --op add --json -
cp "$folder/stdout" "$folder/build.json"
check "JSON alone on stdout, every case in it" json "$folder/build.json" 'd["verdict"] == "wrong" and len(d["failures"]) > 3 and d["cases"] > 3'
check "with the reason" json "$folder/build.json" '"no-such-option" in d["failures"][0]["text"]'
unset EQUIL_BUILD_OPTIONS

# A driver that breaks in the suites: on PoCL the programs of linear, pool_max, pool_avg and layout are the first that have the size of
# a block among their options. Nothing but the suite's process ends.
mkdir "$folder/break"
echo "kill 0" >"$folder/break/attempts" # nobody kills here
block=$(python3 -c 'import json, sys; print(next(r["blocks"][0] for r in json.load(open(sys.argv[1]))["rows"] if r["op"] == "pool_max"))' "$folder/right.json")
tool=$equil
broken() {
    env LD_PRELOAD="$EQUIL_BUILD_ROOT/tests/cli/doctor/libdriver.so" BREAK_FOLDER="$folder/break" BREAK_PROGRAM="-DBLOCK=$block" "$tool" "$@"
}
equil=broken
check "a driver that breaks" run 1 verify --limit 10 --json "$folder/break.json"
equil=$tool
check "a suite that crashed: what it was in" stdout_matches '^pool_max: the process was stopped by signal 6 \(.*\) in pool_max, .* \(vector, block [0-9]+\)'
check "its row" stdout_matches '^pool_max .* UNFINISHED$'
check "one that hung" stdout_matches '^pool_avg: the process did nothing for 10 s in pool_avg, '
check "one whose kernel crashed" stdout_matches '^layout: the process was stopped by signal 6 '
check "the verdict of all" stdout_matches '^WRONG: 0 failures in [0-9]+ cases of [0-9]+ suites, .*; 3 suites did not end\.'
check "the file has them" json "$folder/break.json" \
    'd["verdict"] == "wrong" and not d["failures"] and [(c["suite"], c["op"]) for c in d["crashes"]] == [("pool_max", "pool_max"), ("pool_avg", "pool_avg"), ("layout", "layout_pack")]'
check "with what happened" json "$folder/break.json" \
    'all(c["case"] and c["kernels"] == "vector" and c["block"] and ("signal 6" in c["ending"]) != (c["suite"] == "pool_avg") for c in d["crashes"])'
check "the other suites were run" json "$folder/break.json" \
    'd["suites"] == json.load(open("'"$folder/right.json"'"))["suites"] and {r["op"] for r in d["rows"]} >= {"add", "linear_grad", "image", "unit", "conv2d", "network_repeated"}'

# One that hangs, and nothing else: it may be slow.
mkdir "$folder/hang"
printf 'one\ntwo\n' >"$folder/hang/programs"
broken() {
    env LD_PRELOAD="$EQUIL_BUILD_ROOT/tests/cli/doctor/libdriver.so" BREAK_FOLDER="$folder/hang" BREAK_PROGRAM="-DBLOCK=$block" "$tool" "$@"
}
equil=broken
check "a driver that hangs" run 1 verify --op pool_avg --limit 3 --json "$folder/hang.json"
equil=$tool
check "its verdict" stdout_matches '^UNDECIDED: 0 failures in [0-9]+ cases? of 1 suite, .*; 1 suite did not end\.$'
check "what may help" stdout_matches 'needs a longer --limit'
check "the file's" json "$folder/hang.json" 'd["verdict"] == "undecided" and not d["failures"] and len(d["crashes"]) == 1'

# What hangs goes with the process that waits for it; that nobody may have waited for its end is no matter.
runs() { grep -qs '^State:[[:space:]]*[^ZX]' "/proc/$1/status"; }
rm "$folder/hang/attempts"
env LD_PRELOAD="$EQUIL_BUILD_ROOT/tests/cli/doctor/libdriver.so" BREAK_FOLDER="$folder/hang" BREAK_PROGRAM="-DBLOCK=$block" \
    "$tool" verify --op pool_avg --limit 600 >/dev/null 2>&1 &
process=$!
for _ in $(seq 600); do
    grep -qs hang "$folder/hang/attempts" && break
    sleep 0.1
done
child=$(sed -n 's/^hang //p' "$folder/hang/attempts")
check "a child hangs" runs "$child"
kill -KILL $process
wait $process 2>/dev/null
for _ in $(seq 100); do
    runs "$child" || break
    sleep 0.1
done
gone() { ! runs "$1"; }
check "and has gone with its parent" gone "$child"

# A driver that crashes when it is loaded. Nothing but the device's process ends.
mkdir "$folder/vendors"
echo "$EQUIL_BUILD_ROOT/tests/cli/doctor/libcrash.so" >"$folder/vendors/crash.icd"
check "a driver that crashes" env OCL_ICD_VENDORS="$folder/vendors" sh -c "'$equil' verify >'$folder/stdout' 2>'$folder/stderr'; [ \$? -eq 1 ]"
check "is named" stderr_has "was stopped by signal 11"
# A driver that ends the process as if all were well.
broken() { env LD_PRELOAD="$EQUIL_BUILD_ROOT/tests/cli/doctor/libdriver.so" BREAK_EXIT=1 "$tool" "$@"; }
equil=broken
check "a driver that ends the process" run 1 verify --op add
check "is no right one" stdout_matches '^add: the process ended before it was done, with status 0 in add, '
check "nor for the doctor" run 1 doctor
equil=$tool
check "a device that is not there" run 1 verify --device no-such-device
check "is named, too" stderr_has "no-such-device"

check "--quick and --full" run 2 verify --quick --full
check "are two things" stderr_has "equil verify: --quick and --full are two things"
check "an op that is not there" run 2 verify --op no-such-op
check "is named, as well" stderr_has "no --op no-such-op"
check "arguments" run 2 verify something
check "are refused" stderr_has "something"
check "a file that cannot be written" run 1 verify --device no-such-device --json "$folder/none/x.json"
check "has its reason, before anything is verified" stderr_has "$folder/none/x.json: cannot write: No such file or directory"
check "--help has the default" run 0 verify --help
check "which is quick" stdout_matches "the default"
# Every suite is named in the help.
"$equil" verify --help >"$folder/help"
for op in $("$equil" verify --help | tr -s ' \n' ' ' | sed 's/.*only one of //; s/ --limit.*//; s/,//g'); do
    echo "$op"
done >"$folder/ops"
check "the ops of --help" [ "$(wc -l <"$folder/ops")" -eq "$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["suites"])' "$folder/right.json")" ]

finish
