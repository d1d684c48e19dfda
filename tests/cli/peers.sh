#!/bin/sh
# bench/peers.py with an equil that measures nothing, and without PyTorch: what is refused, and what is printed. Needs
# EQUIL_SOURCE_ROOT.
. "$(dirname "$0")/tap.sh"
mkdir "$folder/without"
echo 'raise ImportError("left out")' >"$folder/without/torch.py"
cat >"$folder/fake" <<'EOF'
#!/bin/sh
case "$*" in *"--batch 3 "*) echo "equil: no" >&2; exit 1 ;; esac
cat <<END
{"device": {"name": "Test", "driver": "1"}, "build": {"version": "0", "commit": "c"}, "setup": {}, "results": [{"batch": 16,
 "peak_gflop_per_second": 1000, "conv_gflop": 16, "images_per_second": 20}]}
END
EOF
cat >"$folder/peers" <<EOF
#!/bin/sh
PYTHONPATH=$folder/without exec python3 "$EQUIL_SOURCE_ROOT/bench/peers.py" "\$@"
EOF
chmod +x "$folder/fake" "$folder/peers"
equil=$folder/peers fake=$folder/fake

# refused NAME TEXT ARGUMENT...
refused() {
    what=$1 why=$2
    shift 2
    expect "$what" 2 stderr "peers.py: error: $why" "$@"
    check "in a line after the usage, before any measurement" sh -c "[ \$(wc -l <'$folder/stderr') -eq 2 ] && ! [ -s '$folder/stdout' ]"
}
refused "a command that is not there" "--equil $folder/none: there is no such command" --equil "$folder/none"
refused "no rounds" "argument --rounds: '0' is not a whole number from 1 up" --equil "$fake" --rounds 0
refused "no batch" "argument --batch: '-1' is not a whole number from 1 up" --equil "$fake" --batch=-1
refused "no time" "argument --seconds: 'nan' is not a number of seconds above 0" --equil "$fake" --seconds nan
refused "another mode" "--modes foo: infer, train or both" --equil "$fake" --modes foo
refused "a folder that is not there" "--json $folder/no/x.json: there is no such folder" --equil "$fake" --json "$folder/no/x.json"
refused "a folder for a file" "--json $folder/without: cannot be written" --equil "$fake" --json "$folder/without"
refused "a module that is not there" "--ce-module $folder/no.py: there is no such file" --equil "$fake" --ce-module "$folder/no.py"
expect "a measurement that fails" 1 stderr "peers.py: exit status 1: $fake bench" --equil "$fake" --batch 3
check "is told in a line after its own" [ "$(wc -l <"$folder/stderr")" -eq 2 ]

expect "Equil alone" 0 stdout "Test, driver 1, equil 0 (c); fp32; batch 16 of 224 x 224 pixels; 1 rounds" --equil "$fake" \
    --rounds 1 --json "$folder/x.json"
check "with its goals" grep -qE "^batch 1 / batch 16, CE-ResNet-50 inference, per image +1.000 +0.85 +0.85  reached" "$folder/stdout"
check "and a result" grep -q '"torch": null' "$folder/x.json"
for other in "8 224 fp32" "16 192 fp32" "16 224 tf32"; do
    set -- $other
    expect "batch $1, $2 pixels, $3" 0 stdout "batch 1 / batch $1, CE-ResNet-50" --equil "$fake" --rounds 1 --batch "$1" \
        --size "$2" --precision "$3"
    check "without goals" sh -c "! grep -qE 'reached|missed|aim' '$folder/stdout'"
done
expect "batch 1" 0 stdout "CE-ResNet-50 / ResNet-50, inference" --equil "$fake" --rounds 1 --batch 1
check "is measured once" [ "$(grep -c 'round 1: equil ce-resnet50, infer' "$folder/stdout")" -eq 1 ]

finish
