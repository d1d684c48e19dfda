#!/bin/sh
# Training from outside: files, log, stopping and resuming to the bit, and what goes wrong. train.sh PATH_OF_EQUIL
. "$(dirname "$0")/tap.sh"
source=${EQUIL_SOURCE_ROOT:-.}
child=
trap 'kill -9 $child 2>/dev/null; rm -rf "$folder"' EXIT

# The log without what differs between two runs of the same training: speeds and memory.
plain_log() {
    sed 's/,"images_per_second".*/}/; s/,"options".*//' "$1/log.jsonl"
}

# same_run NAME FOLDER: weights of the last and the best epoch, checkpoint and log are those of the undisturbed run.
same_run() {
    for file in model best checkpoint; do
        check "$1: $file.safetensors has the same bits" cmp "$folder/whole/$file.safetensors" "$2/$file.safetensors"
    done
    plain_log "$folder/whole" >"$folder/log1"
    plain_log "$2" >"$folder/log2"
    check "$1: the log is the same" cmp "$folder/log1" "$folder/log2"
}

# start ARGUMENT...: equil in the background, as $child; Ctrl-C is not ignored, as it is in what a script has there.
start() {
    : >"$folder/stderr"
    env --default-signal=INT "$equil" "$@" >"$folder/stdout" 2>>"$folder/stderr" &
    child=$!
}

# wait_for COMMAND...: until it succeeds, for at most 60 s.
wait_for() {
    tries=0
    until "$@" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 1200 ] && kill -0 "$child" 2>/dev/null || return 1
        sleep 0.05
    done
}

# edit_metadata FILE STATEMENT: of Python, on `texts`, the metadata of the safetensors file.
edit_metadata() {
    python3 - "$@" <<'PYTHON'
import json, sys
data = open(sys.argv[1], "rb").read()
end = 8 + int.from_bytes(data[:8], "little")
header = json.loads(data[8:end])
texts = header["__metadata__"]
exec(sys.argv[2])
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
open(sys.argv[1], "wb").write(len(text).to_bytes(8, "little") + text + data[end:])
PYTHON
}

python3 "$source/tests/cli/make_images.py" "$folder/data" 34 || exit 1
train="train --arch ce-resnet20 --data $folder/data --batch 4 --lr 0.005 --seed 3"

# ---- an undisturbed run

expect "training ends" 0 stderr "done:" $train --epochs 3 --out "$folder/whole"
check "held-out images are spoken of" grep -qF "92 training images of 3 classes, 10 validation images (a tenth" "$folder/stderr"
check "the planned memory is printed" grep -q "planned memory on the device: [0-9]" "$folder/stderr"
check "the log has a line for the start and one for each epoch" python3 - "$folder/whole/log.jsonl" <<'PYTHON'
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
assert lines[0]["event"] == "start" and lines[0]["options"]["batch"] == "4" and lines[0]["held_out"] is True, lines[0]
epochs = [line for line in lines if line["event"] == "epoch"]
assert [line["epoch"] for line in epochs] == [1, 2, 3] and all(line["step"] == 23 for line in epochs), epochs
assert epochs[-1]["loss"] < epochs[0]["loss"] < 3, epochs
PYTHON
expect "a folder that holds a run is left alone" 1 stderr "holds a run already" $train --epochs 3 --out "$folder/whole"
expect "results among the classes are refused" 1 stderr "among the folders of the classes" $train --epochs 3 --out "$folder/data/run"
check "and their folder is not made" [ ! -e "$folder/data/run" ]
expect "a second run" 0 stderr "done:" $train --epochs 3 --out "$folder/again"
same_run "the same seed again" "$folder/again"
expect "another seed" 0 stderr "done:" $train --epochs 1 --seed 4 --out "$folder/other"
check "another seed gives other bits" sh -c "! cmp -s '$folder/whole/model.safetensors' '$folder/other/model.safetensors'"

# ---- stopped by Ctrl-C, and resumed

start $train --epochs 3 --out "$folder/stopped"
wait_for grep -q "step [1-9]" "$folder/stderr"
kill -INT $child
wait $child
check "Ctrl-C: exit code 130" test $? -eq 130
check "Ctrl-C: in the middle of an epoch" grep -Eq "stopped in epoch 1 of 3 after step ([1-9]|1[0-9]|2[0-2]) of 23" "$folder/stderr"
expect "another batch size on resume" 1 stderr "batch is 8, but the run to resume has 4" $train --epochs 3 --batch 8 --resume --out "$folder/stopped"
expect "another number of epochs on resume" 1 stderr "epochs is 4, but the run to resume has 3" $train --epochs 4 --resume --out "$folder/stopped"
again="train --data $folder/data --resume"
expect "another learning rate on resume" 1 stderr "lr is 0, but the run to resume has 0.005" $again --lr 0 --out "$folder/stopped"
expect "another seed on resume" 1 stderr "seed is 0, but the run to resume has 3" $again --seed 0 --out "$folder/stopped"
expect "data that only the checkpoint names" 1 stderr "has data \"$folder/data\", which is read only if it is given again" \
    train --resume --out "$folder/stopped"
EQUIL_CONV=simt expect "another kernel family on resume" 1 stderr 'the run to resume had "vector" as kernel family, and here it is "simt"' \
    $again --out "$folder/stopped"
cp -r "$folder/stopped" "$folder/upgraded"
expect "resumed without naming the options again" 0 stderr "resuming in epoch 1 after step" $again --out "$folder/stopped"
check "the same library: no warning" sh -c "! grep 'warning:' '$folder/stderr'"
same_run "Ctrl-C" "$folder/stopped"

edit_metadata "$folder/upgraded/checkpoint.safetensors" 'texts.update({"plan.equil": "0.0.1", "plan.kernels": "0123456789abcdef"})'
cp -r "$folder/whole" "$folder/gone"
rm "$folder/gone/best.safetensors"
expect "a finished run that has lost a result" 1 stderr "gone/best.safetensors is not there any more" $again --out "$folder/gone"
expect "resumed by another library" 0 stderr "results may differ in their last bits" $again --out "$folder/upgraded"
check "one warning, with both libraries" sh -c "test \$(grep -c 'warning:' '$folder/stderr') = 1 &&
    grep -E 'is by Equil 0.0.1 .kernels 0123456789abcdef, tuning [0-9a-z]+., and this is Equil [0-9.]+ .kernels [0-9a-f]{16}, tuning [0-9a-z]+.:' '$folder/stderr'"
same_run "an upgrade" "$folder/upgraded"

# ---- other signals, and messages that nobody reads

mkfifo "$folder/pipe"
cat "$folder/pipe" >"$folder/stderr" &
reader=$!
env --default-signal=INT "$equil" $train --epochs 3 --out "$folder/piped" >/dev/null 2>"$folder/pipe" &
child=$!
wait_for grep -q "step [1-9]" "$folder/stderr"
kill -9 $reader
wait $reader 2>/dev/null
kill -INT $child
wait $child
check "Ctrl-C where the messages' reader has gone: exit code 130" test $? -eq 130
expect "and the position is saved" 0 stderr "resuming in epoch 1 after step" $again --out "$folder/piped"
same_run "a reader that went" "$folder/piped"

: >"$folder/stderr"
"$equil" $train --epochs 3 --out "$folder/hung" >/dev/null 2>"$folder/stderr" & # a shell without job control ignores Ctrl-C for it
child=$!
wait_for grep -q "step [1-9]" "$folder/stderr"
kill -INT $child
check "what was ignored at the start stays so" wait_for grep -q "epoch 1/3 .*validation: loss" "$folder/stderr"
kill -HUP $child
wait $child
check "a terminal that is closed: exit code 130" test $? -eq 130
expect "and the position is saved" 0 stderr "resuming in epoch" $again --out "$folder/hung"
same_run "a terminal that was closed" "$folder/hung"

# ---- killed, and resumed from the last epoch

start $train --epochs 3 --out "$folder/killed"
wait_for test -e "$folder/killed/checkpoint.safetensors"
sleep 0.2
kill -9 $child
wait $child 2>/dev/null
check "killed before the end" sh -c "! grep -q '\"epoch\":3' '$folder/killed/log.jsonl'"
printf '{"event":"half a li' >>"$folder/killed/log.jsonl"
expect "resumed with the same options" 0 stderr "resuming in epoch" $train --epochs 3 --resume --out "$folder/killed"
same_run "kill -9" "$folder/killed"
expect "resuming a run that is done" 0 stderr "the run is finished: nothing is left to do" $again --out "$folder/killed"
check "it does not resume" sh -c "! grep -q 'resuming in' '$folder/stderr'"
expect "nothing to resume" 1 stderr "no checkpoint to resume from" train --resume --out "$folder/nothing"
head -c 4000 "$folder/whole/checkpoint.safetensors" >"$folder/other/checkpoint.safetensors"
expect "a damaged checkpoint" 1 stderr "$folder/other/checkpoint.safetensors" train --resume --out "$folder/other"

# ---- two trainings at once, and what a run that failed has left

start $train --epochs 100 --out "$folder/locked"
wait_for test -e "$folder/locked/checkpoint.safetensors"
expect "a second training into a folder" 1 stderr "$folder/locked: another training writes there now" $train --epochs 100 --out "$folder/locked"
expect "resuming a run that goes on" 1 stderr "$folder/locked: another training writes there now" $again --out "$folder/locked"
kill -9 $child
wait $child 2>/dev/null
expect "a kill leaves no lock" 1 stderr "epochs is 3, but the run to resume has 100" $train --epochs 3 --resume --out "$folder/locked"
for file in best model; do
    mkdir "$folder/left-$file"
    cp "$folder/whole/$file.safetensors" "$folder/left-$file"
    expect "$file.safetensors without a checkpoint is not written over" 1 stderr "left-$file/$file.safetensors is there, without a checkpoint" \
        $train --epochs 1 --out "$folder/left-$file"
done

# ---- a loss that is not finite

expect "an absurd learning rate ends in a message" 1 stderr "the first tensor that is not finite is" $train --epochs 1 --lr 1e30 --out "$folder/nan"
check "it does not speak of a checkpoint that there is not" stderr_has "training stopped before there was a checkpoint: epoch 1"
check "it names epoch and step" grep -Eq "epoch 1, step [0-9]+: the loss is" "$folder/stderr"
check "no weights that are not finite are kept" sh -c "! test -e '$folder/nan/model.safetensors'"

# ---- gradient accumulation, other options

expect "accumulation" 0 stderr "1 epochs of 11 steps, batch 4 x 2" $train --epochs 1 --accumulate 2 --out "$folder/accumulate"
expect "more images in a batch than there are" 0 stderr "batch 92" $train --epochs 1 --batch 100 --out "$folder/large"
check "no speed of an epoch of one step" sh -c "! grep 'images/s' '$folder/stderr'"
check "nor in the log" grep -q '"images_per_second":null,"val_images_per_second":null' "$folder/large/log.jsonl"
expect "a recipe in full" 0 stderr "done:" $train --epochs 1 --schedule step --warmup 1 --label-smoothing 0.1 --augment full --momentum 0 --weight-decay 0 \
    --out "$folder/recipe"
expect "starting from weights" 0 stderr "done:" $train --epochs 1 --weights "$folder/whole/model.safetensors" --out "$folder/from"

mkdir "$folder/two"
cp -r "$folder/data/red" "$folder/data/blue" "$folder/two"
expect "weights of other classes" 1 stderr "fc.weight" train --arch ce-resnet20 --data "$folder/two" --weights "$folder/whole/model.safetensors" \
    --out "$folder/x"
expect "weights of other classes with a new head" 0 stderr "of 2 classes" train --arch ce-resnet20 --data "$folder/two" --batch 4 --epochs 1 \
    --weights "$folder/whole/model.safetensors" --new-head --out "$folder/head"

# ---- other images than those of the run to resume

cp -r "$folder/stopped" "$folder/changed"
mv "$folder/data/red/033.png" "$folder/033.png"
expect "an image less on resume" 1 stderr "had 92 training and 10 validation images, and here are 91 and 10: the data has changed" \
    $again --out "$folder/changed"
mv "$folder/033.png" "$folder/data/red/034.png"
expect "an image of another name on resume" 1 stderr "here are 92 and 10, with other names or classes" $again --out "$folder/changed"
mv "$folder/data/red/034.png" "$folder/data/red/033.png"
edit_metadata "$folder/changed/checkpoint.safetensors" \
    'assert [texts.pop("data." + key) for key in ("train_images", "val_images", "hash")][:2] == ["92", "10"]'
expect "a checkpoint that does not know its images" 0 stderr "done:" $again --out "$folder/changed"

# ---- names that are not UTF-8

bytes=$folder/$(printf 'dat\377a')
cp -r "$folder/two" "$bytes"
cp "$folder/head/model.safetensors" "$bytes/start.safetensors"
bytes_train="train --arch ce-resnet20 --batch 4 --epochs 2 --lr 0.005"
start $bytes_train --data "$bytes" --val "$bytes" --weights "$bytes/start.safetensors" --out "$folder/bytes"
wait_for test -e "$folder/bytes/checkpoint.safetensors"
kill -INT $child
wait $child
expect "paths that are not UTF-8: resumed" 0 stderr "done:" train --data "$bytes" --val "$bytes" --resume --out "$folder/bytes"
check "paths that are not UTF-8: the log has them" python3 - "$folder/bytes/log.jsonl" <<'PYTHON'
import json, sys
options = json.loads(open(sys.argv[1], encoding="utf-8").readline())["options"]
assert all(options[key].endswith(end) for key, end in (("data", "dat\\xffa"), ("val", "dat\\xffa"), ("weights", "dat\\xffa/start.safetensors"))), options
PYTHON
expect "other data on resume" 1 stderr 'dat\xffa' train --data "$folder/two" --val "$bytes" --resume --out "$folder/bytes"
mv "$bytes/red" "$bytes/$(printf 'r\351d')"
expect "the name of a class is not UTF-8" 1 stderr 'the name of the class r\xe9d is not UTF-8' $bytes_train --data "$bytes" --out "$folder/x"

# ---- mistakes

expect "an unknown network" 1 stderr 'resnet50' train --arch resnet7 --data shapes --out "$folder/x"
expect "no network" 2 stderr "--arch is missing" train --data shapes --out "$folder/x"
expect "no data" 2 stderr "--data is missing" train --arch resnet20 --out "$folder/x"
expect "no output folder" 2 stderr "--out is missing" train --arch resnet20 --data shapes
expect "data that is not there" 1 stderr "no-such-folder" train --arch resnet20 --data "$folder/no-such-folder" --out "$folder/x"
mkdir -p "$folder/empty" "$folder/one/cat"
cp "$folder/data/red/000.png" "$folder/one/cat"
expect "an empty folder" 1 stderr "$folder/empty" train --arch resnet20 --data "$folder/empty" --out "$folder/x"
expect "one class" 1 stderr "only one class" train --arch resnet20 --data "$folder/one" --out "$folder/x"
expect "an output folder that cannot be made" 1 stderr "/dev/null/out" train --arch resnet20 --data "$folder/data" --out /dev/null/out
expect "an output folder that cannot be written" 1 stderr "/proc" train --arch resnet20 --data "$folder/data" --out /proc
expect "a new head without weights" 1 stderr "new-head" train --arch resnet20 --data "$folder/data" --new-head --out "$folder/x"
expect "images too small for a CE" 1 stderr "the image is 1 x 1 here" train --arch ce-resnet18 --size 16 --data "$folder/data" --out "$folder/x"
expect "a warm-up longer than the run" 1 stderr "warm-up" $train --epochs 1 --warmup 2 --out "$folder/x"
check "failures before the start leave nothing behind" sh -c "! ls '$folder/x' 2>/dev/null | grep ."

# ---- evaluation and classification

expect "eval" 0 stderr "" eval --weights "$folder/whole/best.safetensors" --data "$folder/data" --json
check "eval --json has the keys, and the network has learned" python3 - "$folder/stdout" <<'PYTHON'
import json, sys
result = json.load(open(sys.argv[1]))
assert {"top1", "top5", "loss", "images_per_second", "images", "skipped"} <= set(result), result
assert result["top1"] > 0.7 and result["top5"] == 1 and result["images"] == 102 and result["skipped"] == 0, result
PYTHON
expect "eval of one batch" 0 stdout "broken ones left out)" eval --weights "$folder/whole/best.safetensors" --data "$folder/data" --batch 102
check "has no speed" sh -c "! grep 'images/s' '$folder/stdout'"
expect "eval with other classes" 1 stderr "shapes: class arrow is not among the 3 known ones" eval --weights "$folder/whole/best.safetensors" --data shapes
expect "eval of a file that is not there" 1 stderr "no-such-file" eval --weights "$folder/no-such-file" --data shapes
expect "classify" 0 stderr "" classify --weights "$folder/whole/best.safetensors" --format csv "$folder/data/red" "$folder/data/blue/000.png"
check "classify: three classes for each of 35 images, and a head line" test "$(wc -l <"$folder/stdout")" -eq 106
cp "$folder/data/red/000.png" "$folder/one/000.png"
head -c 300 "$folder/data/red/000.png" >"$folder/one/broken.png"
check "and no true classes" grep -qx "file,rank,label,class,probability" "$folder/stdout"
mkdir "$folder/idx"
python3 - "$folder/idx" <<'PYTHON'
import struct, sys
for name, header, size in (("t10k-images-idx3-ubyte", (0x803, 2, 28, 28), 2 * 28 * 28), ("t10k-labels-idx1-ubyte", (0x801, 2), 2)):
    with open(sys.argv[1] + "/" + name, "wb") as file:
        file.write(struct.pack(">%di" % len(header), *header) + b"\1" * size)
PYTHON
expect "classify: classes of a data set" 0 stdout "t10k-images-idx3-ubyte, image 1 (1)" classify --weights "$folder/whole/best.safetensors" "idx:$folder/idx"
expect "classify: drawn shapes" 0 stdout "shape 1000000 (arrow)" classify --weights "$folder/whole/best.safetensors" --limit 1 shapes
check "say their class once" sh -c "! grep 'arrow).*arrow)' '$folder/stdout'"
expect "classify: a data set and a file in a table" 0 stderr "" classify --weights "$folder/whole/best.safetensors" --top 1 --format csv "idx:$folder/idx" \
    "$folder/data/blue/000.png"
check "have a column of true classes" python3 - "$folder/stdout" <<'PYTHON'
import csv, sys
rows = list(csv.DictReader(open(sys.argv[1], newline="")))
assert [row["true_class"] for row in rows] == ["1", "1", ""] and list(rows[0])[-1] == "true_class", rows
PYTHON
sed 's/"act":"relu"/"act":"gelu"/' "$folder/whole/best.safetensors" >"$folder/gelu.safetensors"
expect "info of a file" 0 stdout "parameters" info --weights "$folder/whole/best.safetensors"
expect "info: what nothing can be made of" 1 stderr 'gelu.safetensors: its metadata has act "gelu"' info --weights "$folder/gelu.safetensors"
expect "classify: two forms at once" 2 stderr "--json and --format csv are two things" classify --weights x --json --format csv y
expect "classify: drawings in a table" 2 stderr "--show is for text, not csv" classify --weights x --show --format csv y
for class in "$folder/data"/*; do
    mkdir -p "$folder/rotten/${class##*/}"
    cp "$folder/one/broken.png" "$folder/rotten/${class##*/}/"
done
expect "eval of broken images alone: the first's reason" 1 stderr "images can be read; the first: $folder/rotten/" eval --weights "$folder/whole/best.safetensors" --data "$folder/rotten"
expect "a broken image is an error that names it" 1 stderr "broken.png" classify --weights "$folder/whole/best.safetensors" --json "$folder/one"
check "the others are done" python3 - "$folder/stdout" <<'PYTHON'
import json, sys
images = json.load(open(sys.argv[1]))["images"]
assert len(images) == 1 and len(images[0]["top"]) == 3, images
assert abs(sum(row["probability"] for row in images[0]["top"]) - 1) < 1e-5, images
PYTHON
mkdir "$folder/names"
cp "$folder/data/red/000.png" "$folder/names/$(printf 'r\351d').png"
cp "$folder/data/red/001.png" "$folder/names/red.png"
expect "a name that is not UTF-8, in JSON" 0 stderr "" classify --weights "$folder/whole/best.safetensors" --json "$folder/names"
check "no image is left out" python3 - "$folder/stdout" <<'PYTHON'
import json, sys
names = [image["file"].rsplit("/", 1)[1] for image in json.load(open(sys.argv[1], encoding="utf-8"))["images"]]
assert names == ["red.png", "r\N{REPLACEMENT CHARACTER}d.png"], names
PYTHON
expect "a file that is not there" 1 stderr "1 of 2 images could not be read" classify --weights "$folder/whole/best.safetensors" --format csv "$folder/nofile.png" "$folder/data/blue/000.png"
check "and the other one is done" test "$(wc -l <"$folder/stdout")" -eq 4
expect "a folder without images" 1 stderr "$folder/empty" classify --weights "$folder/whole/best.safetensors" "$folder/empty"

# ---- broken images while training

cp "$folder/one/broken.png" "$folder/data/red/zzz.png"
expect "a broken image is skipped" 0 stderr "done:" $train --epochs 1 --val "$folder/data" --out "$folder/broken"
check "it is named" grep -q "zzz.png" "$folder/stderr"
check "it is counted" grep -q '"skipped":1,"val_skipped":1' "$folder/broken/log.jsonl"

finish
