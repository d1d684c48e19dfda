#!/bin/sh
# equil bench: results, comparisons, reports, and what is refused. bench.sh PATH_OF_EQUIL, with EQUIL_SOURCE_ROOT set
. "$(dirname "$0")/tap.sh"
golden=$EQUIL_SOURCE_ROOT/tests/cli/bench
subcommand=bench

# edit FROM TO PYTHON: a copy of a result with `d` changed.
edit() {
    python3 -c "import json, sys
d = json.load(open(sys.argv[1]))
$3
json.dump(d, open(sys.argv[2], 'w'))" "$1" "$2"
}

# ---- measuring, on a network small enough for every device

expect "a network" 0 stdout "images/s" --arch resnet20 --batch 2 --seconds 0.01 --json "$folder/net.json"
python3 - "$folder/net.json" <<'EOF' >"$folder/stdout" 2>&1
import json, sys
d = json.load(open(sys.argv[1]))
assert d["format"] == "equil-bench" and d["format_version"] == 1
assert d["device"]["name"] and d["build"]["commit"] and d["build"]["compiler"] and d["setup"]["tuning"]
(r,) = d["results"]
assert r["arch"] == "resnet20" and r["batch"] == 2 and r["size"] == 32 and r["mode"] == "infer"
for time in (r["wall"], r["device"]):
    assert 0 < time["best_ms"] <= time["low_ms"] <= time["median_ms"] <= time["high_ms"] and time["runs"] >= 6
assert abs(r["images_per_second"] - 2e3 / r["wall"]["median_ms"]) < 1e-3 * r["images_per_second"]
assert len(r["steps"]) > 20 and any(s["kernel"].startswith("conv2d") for s in r["steps"])
for s in r["steps"]:
    roof = max(s["gflop"] / r["peak_gflop_per_second"], s["mbyte"] / 1e3 / r["peak_gbyte_per_second"])
    assert abs(s["share_of_roof"] - roof / (s["median_ms"] / 1e3)) <= 1e-4 * s["share_of_roof"]
assert 0.1 < sum(s["median_ms"] for s in r["steps"]) / r["device"]["median_ms"] < 2    # apart only by what else the machine does
EOF
result "its JSON is complete and consistent" $?
expect "training" 0 stdout "training, batch 2" --arch resnet20 --batch 2 --mode train --seconds 0.01
expect "JSON alone on stdout" 0 stdout '"format": "equil-bench"' --arch resnet20 --batch 1 --seconds 0.01 --json -
python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$folder/stdout" 2>"$folder/stderr"
result "which is nothing but JSON" $?
expect "convolutions with what is fused in" 0 stdout "16x32x32 -> 16x32x32 k3 s1 + residual relu" --arch resnet20 --batch 2 --op conv2d --seconds 0.001
check "and those without" grep -q "16x32x32 -> 16x32x32 k3 s1 relu  " "$folder/stdout"
expect "single ops" 0 stdout "double precision" --arch resnet20 --batch 2 --op conv2d_weight_grad --mode train --seconds 0.001 --json "$folder/ops.json"
python3 - "$folder/ops.json" <<'EOF' >"$folder/stdout" 2>&1
import json, sys
results = json.load(open(sys.argv[1]))["results"]
assert sum(r["count"] for r in results) == 21 and len(results) < 21    # 19 convolutions of 3 x 3 and 2 of 1 x 1
assert all(r["kind"] == "op" and r["op"] == "conv2d_weight_grad" and r["gflop"] > 0 and r["check"] == "double precision" for r in results)
EOF
result "each different call once, with its count" $?
expect "gradients of units" 0 stdout "unit_grad" --arch resnet20 --batch 1 --op unit_grad --mode train --seconds 0.001 --json "$folder/grads.json"
python3 - "$folder/grads.json" <<'EOF' >"$folder/stdout" 2>&1
import json, sys
results = json.load(open(sys.argv[1]))["results"]
assert sum(r["count"] for r in results) == 21 and len(results) <= 10, results    # 9 kinds, bn1's without a halo
EOF
result "the different ones of them, too" $?
expect "an op that is not there" 1 stderr "the plan; it has" --arch resnet20 --batch 1 --op frobnicate
printf '# layers\nodd  conv2d ic=17 oc=5 size=9 kernel=3 pad=1\nsplit conv2d ic=32 oc=32 size=9 kernel=3 pad=1 groups=2\npool pool_max ic=8 size=8 kernel=2 stride=2\nnorm unit ic=20 size=5\nfc linear ic=33 oc=7\n' \
    >"$folder/shapes"
expect "a list of layers" 0 stdout "17x9x9 -> 5x9x9 k3 s1" --op all --shapes "$folder/shapes" --batch 2 --mode train --seconds 0.001
for op in conv2d conv2d_data_grad conv2d_weight_grad pool_max pool_max_grad unit unit_grad linear linear_grad; do
    grep -q "^$op .*double precision\|^${op}_*[a-z]* .*finite, repeated" "$folder/stdout"
    result "a list of layers has $op" $?
done
check "and groups" grep -q "32x9x9 -> 32x9x9 k3 s1 g2" "$folder/stdout"
printf 'a conv2d ic=4 oc=4 size=4\nb conv2d ic=4 oc=x size=4\n' >"$folder/broken"
echo "# nothing but this" >"$folder/no_layers"
expect "a list without layers" 1 stderr "no_layers: there is no layer in it" --op all --shapes "$folder/no_layers" --batch 1
expect "a list that is not there" 1 stderr "cannot read $folder/none: No such file or directory" --op all --shapes "$folder/none" --batch 1
head -c 1048577 /dev/zero >"$folder/large"
expect "a list that is too large" 1 stderr "large has more than the 1048576 bytes" --op all --shapes "$folder/large" --batch 1
# Found out before anything is measured: the device comes later.
for path in "$folder/none/x.json" "$folder/shapes/x.json" "$folder"; do
    expect "a file for JSON that cannot be written" 1 stderr "$path: cannot write: " --arch resnet20 --device no-such-device --json "$path"
done
echo kept >"$folder/kept"
expect "a file for JSON that can be" 1 stderr "no usable device matches 'no-such-device'" --arch resnet20 --device no-such-device --json "$folder/kept"
[ "$(cat "$folder/kept")" = kept ] && ! ls "$folder"/*.part 2>/dev/null
result "is not touched before there is a result" $?
printf 'a conv2d ic=16 oc=16 size=8\nb conv2d ic=32 oc=16 size=8\n' >"$folder/two"
expect "an op that no layer has" 1 stderr "no op nope in the plan; it has unit_prepare, unit, conv2d, and all" --op nope --shapes "$folder/two" --batch 1
expect "a list with a fault" 1 stderr "broken:2: oc=x is not a number" --op all --shapes "$folder/broken" --batch 1 --seconds 0.001
# A line that says what the layer would not do.
refused() { # name, message, line
    printf '%s\n' "$3" >"$folder/line"
    expect "$1" 1 stderr "line:1: $2" --op all --shapes "$folder/line" --batch 1 --seconds 0.001
}
refused "a key that is there twice" "a: pad= is there twice: 1 and 0" "a conv2d ic=4 oc=4 size=4 kernel=3 pad=1 pad=0"
refused "a key that means nothing" "a: pool_max does not take groups=" "a pool_max ic=4 size=4 kernel=2 groups=2"
refused "a key that is missing" "a: oc= is missing" "a linear ic=4"
refused "a layer that is not there" "a: gelu is none of conv2d, pool_max, linear, unit" "a gelu ic=4"
refused "a name that is too long" "a name of 64 bytes, 63 are possible" "$(printf '%064d' 0) unit ic=4"
printf 'a unit ic=4 size=3\0b unit ic=4 size=3\n' >"$folder/zero"
expect "a list with a zero byte" 1 stderr "zero is not text: its byte 18 is 0" --op all --shapes "$folder/zero" --batch 1
expect "a result that is a folder" 1 stderr "cannot read $folder: Is a directory" --compare "$folder" "$folder"

# ---- usage

expect "nothing to measure" 2 stderr "--arch is missing"
expect "a file to measure" 2 stderr "files are for --compare and --report" --arch resnet20 x.json
expect "one file to compare" 2 stderr "--compare takes two files, not 1" --compare x.json
expect "nothing to report" 2 stderr "the files to report" --report x.html
expect "what does not go with --compare" 2 stderr "--arch does not go with --compare" --compare --arch resnet20 x.json y.json
expect "what does not go with --report" 2 stderr "--noise does not go with --report" --report x.html --noise 0.1 x.json
expect "a noise without a comparison" 2 stderr "--noise is for --compare" --arch resnet20 --noise 0.1
expect "a size on a curve of sizes" 2 stderr "--size does not go with --curve size" --arch resnet20 --curve size --size 64
expect "memory to save without gradients" 2 stderr "--recompute is for --mode train" --arch resnet20 --recompute
expect "shapes without an op" 2 stderr "--shapes goes with --op" --shapes x

# A curve leaves out what does not fit into memory, and nothing else.
expect "a point of a curve that fails" 1 stderr "equil: layer4.0.bn1: unit: training with 1 image of 1 x 1 pixels" \
    --arch resnet18 --size 32 --mode train --curve batch --json "$folder/failed.json"
check "ends it" sh -c "! grep -qE 'left out|batch 2' '$folder/stderr' && ! test -e '$folder/failed.json'"
export POCL_MEMORY_LIMIT=1
expect "a curve whose points do not fit" 1 stderr "batch 64 of 4096 x 4096 pixels is left out: " --arch resnet20 --size 4096 --curve batch
unset POCL_MEMORY_LIMIT

# ---- comparing

a=$golden/a.json b=$golden/b.json
expect "a file with itself" 0 stdout "0 faster, 0 slower, 2 within noise" --compare "$a" "$a"
expect "slower and faster" 3 stdout "1 faster, 1 slower, 0 within noise" --compare "$a" "$b"
grep -qF "1.600  (1.584 to 1.616)  faster" "$folder/stdout"
result "the ratio with its band" $?
grep -qF "What else differs:" "$folder/stdout"
result "and what else differs" $?
expect "a file with itself" 0 stdout "How many times as fast" --compare "$a" "$a"
! grep -qF "What else differs" "$folder/stdout"
result "differs in nothing else" $?
expect "as large a noise" 0 stdout "0 faster, 0 slower, 2 within noise" --compare --noise 0.9 "$a" "$b"
edit "$a" "$folder/faster.json" 'for k in ("median_ms", "low_ms", "high_ms", "best_ms"): d["results"][0]["wall"][k] *= 0.97'
expect "3 % faster" 0 stdout "1 faster, 0 slower, 1 within noise" --compare "$a" "$folder/faster.json"
edit "$a" "$folder/wide.json" 'd["results"][0]["wall"].update(median_ms=310.4, low_ms=290, high_ms=330)'
expect "3 % faster in a wide interval" 0 stdout "0 faster, 0 slower, 2 within noise" --compare "$a" "$folder/wide.json"
# Calls that differ in nothing but the memory around their tensors have one name.
edit "$a" "$folder/twice.json" 'd["results"] += [dict(d["results"][0], wall=dict(d["results"][0]["wall"], median_ms=900, low_ms=890, high_ms=910))]'
expect "two of one name with themselves" 0 stdout "0 faster, 0 slower, 3 within noise" --compare "$folder/twice.json" "$folder/twice.json"
expect "one of two is refused" 1 stderr "has ce-resnet50 infer, batch 16, 224 px, 1000 classes, which" --compare "$a" "$folder/twice.json"
edit "$a" "$folder/platform.json" 'd["device"]["platform"] = "Another"'
expect "another platform" 0 stdout "B: Another" --compare "$a" "$folder/platform.json"
edit "$a" "$folder/batch.json" 'd["results"][0]["batch"] = 8'
expect "another batch is refused" 1 stderr "has ce-resnet50 infer, batch 8, 224 px, 1000 classes, which" --compare "$a" "$folder/batch.json"
expect "and the other is named" 1 stderr "has ce-resnet50 infer, batch 16, 224 px, 1000 classes, which" --compare "$a" "$folder/batch.json"

# ---- faults in files

fault() {
    edit "$a" "$folder/fault.json" "$2"
    expect "$1" 1 stderr "$3" --compare "$a" "$folder/fault.json"
}
fault "another format" 'd["format"] = "x"' 'its format is not "equil-bench"'
fault "another version" 'd["format_version"] = 2' "format_version is 2; this program reads 1"
fault "no results" 'd["results"] = []' "results has to be an array with something in it"
fault "no device" 'del d["device"]' "device is not an object"
fault "a missing number" 'del d["results"][1]["wall"]["low_ms"]' "results[1].wall.low_ms is missing"
fault "a negative time" 'd["results"][0]["wall"]["median_ms"] = -1' "results[0].wall.median_ms is -1: it has to be in 1e-09 to 1e+15"
fault "a time that is next to nothing" 'd["results"][0]["wall"].update(low_ms=1e-308, median_ms=1e-308)' "results[0].wall.median_ms is 1e-308"
fault "a peak beyond any device" 'd["results"][0]["peak_gflop_per_second"] = 1e300' "peak_gflop_per_second is 1e+300"
fault "a median outside" 'd["results"][0]["wall"]["high_ms"] = 1' "median outside"
fault "a text for a number" 'd["results"][0]["batch"] = "16"' "results[0].batch is not a whole number"
fault "a broken step" 'd["results"][0]["steps"][2]["kernel"] = 5' "results[0].steps[2].kernel is not a text"
fault "a text that would be a command to the terminal" 'd["results"][0]["arch"] = "\x1b[31m"' "results[0].arch is not a text, or has control characters"
fault "another in UTF-8" 'd["device"]["name"] = "\x9b31m"' "device.name is not a text, or has control characters"
fault "a date that would be one" 'd["created"] = "\x1b[31m"' "created is not a text, or has control characters"
# A terminal is not told what stands in a file's name, either.
escape=$(printf '\033')
cp "$a" "$folder/${escape}[31m.json"
python3 -c 'import pty, sys; pty.spawn(sys.argv[1:])' "$equil" bench --compare "$a" "$folder/${escape}[31m.json" </dev/null >"$folder/stdout" 2>&1
grep -qF "?[31m.json, Alpha 100" "$folder/stdout" && ! grep -qF "$escape" "$folder/stdout"
result "a name that would be a command to the terminal" $?
fault "a network of no pixels" 'd["results"][0]["size"] = 0' "results[0].size is 0: a network has images"
fault "bytes that have no number" 'd["results"][0]["memory_mib"] = 1e15' "results[0].memory_mib is more than there is"
fault "another mode" 'd["results"][0]["mode"] = "foo"' "results[0].mode is neither infer nor train"
fault "two kinds" 'd["results"][1]["kind"] = "op"' "results[1].kind is op where results[0] is network: a file has one kind"
fault "another kind" 'd["results"][0]["kind"] = "x"' "results[0].kind is neither network nor op"
echo '{"format": ' >"$folder/cut.json"
expect "a file that was cut" 1 stderr "not JSON: " --compare "$a" "$folder/cut.json"
expect "a file that is not there" 1 stderr "cannot read $folder/none.json" --compare "$a" "$folder/none.json"

# ---- the page

edit "$a" "$folder/curve.json" 'd["results"] = [dict(d["results"][0], batch=n, images_per_second=40.0 + n) for n in (1, 2, 4, 8)]'
expect "a report" 0 stdout "" --report "$folder/page.html" "$a" "$b" "$folder/ops.json" "$folder/curve.json" "$folder/net.json"
python3 - "$folder/page.html" <<'EOF' >"$folder/stdout" 2>&1
import html.parser, re, sys
text = open(sys.argv[1], encoding="utf-8").read()
open_tags, empty = [], {"br", "meta", "rect", "line", "circle", "path"}
class Check(html.parser.HTMLParser):
    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "link", "img", "iframe"), tag
        assert not any(name in ("src", "href") or name.startswith("on") for name, _ in attributes), attributes
        if tag not in empty | {"tr", "td", "th"}:
            open_tags.append(tag)
    def handle_endtag(self, tag):
        if tag not in empty | {"tr", "td", "th"}:
            assert open_tags.pop() == tag, tag
Check().feed(text)
assert not open_tags, open_tags
assert text.endswith("</html>\n") and text.count("<svg") >= 10
assert "nan" not in re.sub("[a-z_]*nan[a-z]+|[a-z_]+nan[a-z]*", "", text.lower()) and "inf," not in text
assert "Beta &lt;200&gt; &amp; &quot;co&quot;" in text and "Beta <200>" not in text and "Test &lt;platform&gt;" in text
assert "http" not in text
for word in ("Alpha 100", "Inference", "Training", "80.0", "conv2d_winograd_vector", "1.20 times", "images in a batch", "0123456789ab"):
    assert word in text, word
EOF
result "the page is whole, closed, escaped, and loads nothing" $?
# Before and after a change, on one device, in files of one name, and what else was measured after it.
mkdir "$folder/after"
edit "$a" "$folder/after/a.json" 'd["created"] = "2026-11-28T10:11:12Z"; d["build"]["commit"] = "fedcba987654"'
edit "$a" "$folder/rerun.json" 'd["created"] = "2026-11-29T10:11:12Z"'
edit "$folder/curve.json" "$folder/after/curve.json" 'd["build"]["commit"] = "fedcba987654"
d["results"] = d["results"][1:]; [r.update(batch=r["batch"] * 16) for r in d["results"]]'
expect "a report of one device" 0 stdout "" --report "$folder/page.html" "$a" "$folder/after/a.json" "$folder/rerun.json" "$folder/after/curve.json"
python3 - "$folder" "$a" <<'EOF' >"$folder/stdout" 2>&1
import html, re, sys
folder, a = sys.argv[1:]
text = open(folder + "/page.html", encoding="utf-8").read()
legend = [html.unescape(t) for t in re.findall(r'</span>([A-Z]  [^<]*)</span>', text)]
assert legend == [f"A  Alpha 100, {a}, commit 0123456789ab, 2026-11-22T12:00:00Z",
                  f"B  Alpha 100, {folder}/after/a.json, curve.json, commit fedcba987654, 2026-11-28T10:11:12Z",
                  "C  Alpha 100, rerun.json, commit 0123456789ab, 2026-11-29T10:11:12Z"], legend
row = lambda name: re.search(f"<tr><th>{name}</th>(.*?)</tr>", text).group(1)
assert re.findall('<td class="w">(.*?)</td>', row("file")) == [a, f"{folder}/after/a.json<br>curve.json", "rerun.json"], row("file")
assert re.findall('<td class="w">(.*?)</td>', row("measured")) == \
    ["2026-11-22T12:00:00Z", "2026-11-28T10:11:12Z<br>2026-11-22T12:00:00Z", "2026-11-29T10:11:12Z"], row("measured")
bars = re.findall(r"<text x=\"([0-9.]+)\"[^>]*>([A-C]  Alpha[^<]*)<", text)
assert len(bars) == 6 and all(float(x) + 7 * len(html.unescape(label)) <= 1064 for x, label in bars), bars
EOF
result "tells its files apart by name, commit and date" $?
edit "$b" "$folder/bf16.json" 'd["setup"].update(precision="bf16 on matrix units", winograd=False); d["build"]["version"] = "0.2.0"'
expect "a report of two devices" 0 stdout "" --report "$folder/page.html" "$a" "$folder/bf16.json"
for label in "A  Alpha 100, Winograd on, fp32, equil 0.1.0</span>" \
    "B  Beta &lt;200&gt; &amp; &quot;co&quot;, Winograd off, bf16 on matrix units, equil 0.2.0</span>"; do
    check "which compute with other numbers: $label" grep -qF "$label" "$folder/page.html"
done
check "and that the roof is without matrix units" grep -q "fp32 and without matrix units" "$folder/page.html"
# Long names are cut between letters, and the names of files, whose bytes are anybody's, shown.
edit "$a" "$folder/long.json" 'd["device"]["name"] = "x" + "\u6f22" * 40'
edit "$folder/long.json" "$(printf '%s/\351.json' "$folder")" 'd["created"] = "later"'
expect "a report with long names" 0 stdout "" --report "$folder/page.html" "$folder/long.json" "$(printf '%s/\351.json' "$folder")"
python3 -c 'import sys
text = open(sys.argv[1], encoding="utf-8").read()
assert "A  x" + "\u6f22" * 33 + ", long.json, " in text and ", \ufffd.json, " in text' "$folder/page.html" 2>"$folder/stderr"
result "is UTF-8" $?
edit "$folder/ops.json" "$folder/units.json" 'd["results"][0]["op"] = "unit"'
expect "a report of a unit" 0 stdout "" --report "$folder/page.html" "$folder/units.json"
check "a unit has its class's colour" sh -c "sed 's/<tr>/\\n&/g' '$folder/page.html' | grep '^<tr><td>unit</td>' | grep -q 'var(--c1)'"
edit "$a" "$folder/slow.json" 'd["results"][0]["wall"].update(median_ms=1e6, low_ms=9e5, high_ms=1.1e6)'
expect "a report of a slow device" 0 stdout "" --report "$folder/page.html" "$folder/slow.json"
check "whose speed is not 0.0" grep -q 'font-weight="600">0.016</text>' "$folder/page.html"
# What is above the roof is drawn there, not on the edge, and the ends of lines that meet have their names one above another.
edit "$a" "$folder/above.json" 'd["results"] = d["results"][:1]; d["results"][0]["steps"][0].update(gflop=3e3, median_ms=1e3, low_ms=1e3, high_ms=1e3)'
for n in 1 2 3 4 5 6 7 8; do # flat, so that their ends are at the top
    edit "$folder/curve.json" "$folder/line$n.json" "d['device']['name'] = 'Device $n'
for r in d['results']: r['wall'].update(median_ms=10 * r['batch'], low_ms=9.9 * r['batch'], high_ms=10.1 * r['batch'])"
done
expect "a report of a kernel above the roof, and of lines that meet" 0 stdout "" --report "$folder/page.html" "$folder/above.json" "$folder"/line?.json
python3 - "$folder/page.html" <<'EOF' >"$folder/stdout" 2>&1
import re, sys
text = open(sys.argv[1], encoding="utf-8").read()
discs = [float(y) for y in re.findall(r'<circle cx="[0-9.]+" cy="([0-9.]+)" [^>]*stroke="var\(--panel\)"', text)]
assert discs and min(discs) > 26, discs
names = [float(y) for y in re.findall(r'<text x="1000.0" y="([0-9.]+)" font-size="12" font-weight="600">[B-I] ', text)]
assert len(names) == 8 and min(names) >= 10 and min(abs(a - b) for a in names for b in names if a != b) >= 14 and len(set(names)) == 8, names
EOF
result "shows both" $?
check "from 0 up" sh -c "! grep -q logarithmic '$folder/page.html'"
edit "$folder/line1.json" "$folder/far.json" "d['device']['name'] = 'A fast one'
for r in d['results']: r['wall'].update(median_ms=0.1 * r['batch'], low_ms=0.099 * r['batch'], high_ms=0.101 * r['batch'])"
expect "a report of a device that is a hundred times as fast" 0 stdout "" --report "$folder/page.html" "$folder/line1.json" "$folder/far.json"
check "has an axis for both" grep -q 'ms an image, logarithmic</text>' "$folder/page.html"
edit "$a" "$folder/curve16.json" 'd["results"] = [dict(d["results"][0], batch=n) for n in (8, 16, 32)]'
expect "a report of a network and its curve" 0 stdout "" --report "$folder/page.html" "$a" "$folder/curve16.json"
check "is of one system" grep -q '</span>A  Alpha 100</span> </p>' "$folder/page.html"
# Curves of networks that differ are drawings of their own, and several networks in one file are no curve.
edit "$folder/curve.json" "$folder/again.json" '[r.update(mode="train") for r in d["results"]]'
edit "$folder/again.json" "$folder/less.json" '[r.update(recompute=True, act="elu") for r in d["results"]]'
edit "$a" "$folder/three.json" 'd["results"] = [dict(d["results"][0], arch=arch) for arch in ("resnet18", "resnet34", "resnet50")]'
expect "a report of curves and of three networks" 0 stdout "" --report "$folder/page.html" "$folder/again.json" "$folder/less.json" "$folder/three.json"
for title in "<h3>ce-resnet50 train, 224 x 224 pixels, 1000 classes</h3>" "pixels, 1000 classes, elu, recompute</h3>" ">resnet34 infer, batch 16, 224 px, 1000 classes</text>"; do
    check "has $title" grep -qF "$title" "$folder/page.html"
done
# Nor is a network several times, or are more points than a line has.
edit "$folder/curve.json" "$folder/back.json" 'd["results"].reverse()'
edit "$a" "$folder/times.json" 'd["results"] = d["results"][:1] * 3'
edit "$a" "$folder/many.json" 'd["results"] = [dict(d["results"][0], batch=n) for n in range(1, 18)]'
for name in back times many; do
    expect "a report of what is no curve: $name" 0 stdout "" --report "$folder/page.html" "$folder/$name.json"
    check "draws none" sh -c "! grep -q 'Cost against' '$folder/page.html'"
done
cp "$a" "$folder/input.json"
cp "$b" "$folder/result.json"
ln -s input.json "$folder/link"
expect "a page over its input" 2 stderr "would write over $folder/input.json, a result to report" --report "$folder/link" "$b" "$folder/input.json"
expect "a page over another result" 2 stderr "would write over $folder/result.json, a result of equil bench" --report "$folder/result.json" "$folder/input.json"
cmp -s "$a" "$folder/input.json" && cmp -s "$b" "$folder/result.json"
result "and both are as they were" $?
expect "a page over an old page" 0 stdout "" --report "$folder/page.html" "$a"
expect "a report of a broken file" 1 stderr "cut.json" --report "$folder/none.html" "$a" "$folder/cut.json"
[ ! -e "$folder/none.html" ]
result "writes nothing" $?
expect "a report where nothing can be written" 1 stderr "cannot write" --report "$folder/no/page.html" "$a"
# A device of one's own that is always full, where it may be made and opened.
full=$folder/full
if mknod "$full" c 1 7 2>/dev/null && [ "$(sh -c "echo >'$full'" 2>&1 | grep -c "No space")" -eq 1 ]; then
    expect "a report on a full disk" 1 stderr "$full: cannot write: No space left" --report "$full" "$a"
    expect "JSON on a full disk" 1 stderr "$full: cannot write: No space left" --arch resnet20 --batch 1 --seconds 0.001 --json "$full"
    check "the device is still one" test -c "$full"
else
    skip "a full disk" "no right to make a device"
fi
# A small file system, where this may be: the old page stays, and nothing else.
if mkdir "$folder/small" && mount -t tmpfs -o size=8k tmpfs "$folder/small" 2>/dev/null; then
    echo old >"$folder/small/page.html"
    expect "a report on a disk that fills up" 1 stderr "cannot write" --report "$folder/small/page.html" "$a" "$b"
    [ "$(cat "$folder/small/page.html")" = old ] && [ "$(ls "$folder/small")" = page.html ]
    result "leaves the old one alone" $?
    umount "$folder/small"
else
    skip "a disk that fills up" "no right to mount one"
fi

finish
