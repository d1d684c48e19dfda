#!/usr/bin/env bash
# The Python module as its users have it: installed by pip into a virtual environment, without a network; then its tests there, which
# see the system's packages. Its types by mypy. TAP on stdout; what is skipped is said.
set -u
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
skip() {
    echo "1..0 # SKIP $1"
    exit 0
}
base=
for candidate in python3 /usr/bin/python3; do # the first on the PATH may be none of the system's, without packages
    if "$candidate" -c 'import numpy, setuptools, wheel' 2>/dev/null; then
        base=$candidate
        break
    fi
done
[ -n "$base" ] || skip "there is no python3 with numpy, and setuptools and wheel, which pip builds with"
"$base" -m venv --system-site-packages "$folder/venv" >/dev/null 2>&1 || skip "$base has no venv"
cp -r "$EQUIL_SOURCE_ROOT/src/python" "$folder/source" # pip writes into what it installs from
number=0
failed=0
result() { # status, name, file with what was printed
    number=$((number + 1))
    if [ "$1" -eq 0 ]; then
        echo "ok $number - $2"
    else
        echo "not ok $number - $2"
        failed=1
    fi
    sed 's/^/# /' "$3"
}
python=$folder/venv/bin/python
"$python" -m pip install -q --no-index --no-build-isolation --no-deps "$folder/source" >"$folder/out" 2>&1
result $? "pip install" "$folder/out"
if command -v mypy >/dev/null; then
    (cd "$EQUIL_SOURCE_ROOT/src/python" && mypy --cache-dir="$folder/mypy" equil >"$folder/out" 2>&1)
    result $? "mypy --strict" "$folder/out"
else
    number=$((number + 1))
    echo "ok $number - mypy --strict # SKIP there is no mypy"
fi
export EQUIL_LIBRARY=$EQUIL_BUILD_ROOT/src/libequil.so
for part in headers equil; do
    (cd / && "$python" "$EQUIL_SOURCE_ROOT/tests/python/test_$part.py" >"$folder/out" 2>&1)
    result $? "test_$part.py" "$folder/out"
done
echo "1..$number"
exit $failed
