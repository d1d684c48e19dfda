#!/usr/bin/env bash
# Installs into a scratch folder, and builds and runs every example against that with nothing but pkg-config: shared, and
# static, from C and from C++; one more with CMake. TAP on stdout; arguments: the equil program (unused: the installed one is taken).
set -u
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
number=0
failed=0
source=$EQUIL_SOURCE_ROOT/tests/examples

check() {
    local name=$1
    shift
    number=$((number + 1))
    if "$@" >"$folder/out" 2>&1; then
        echo "ok $number - $name"
    else
        echo "not ok $number - $name"
        sed 's/^/# /' "$folder/out"
        failed=1
    fi
}

# Output of a command has to have a line that matches.
says() {
    local pattern=$1
    shift
    "$@" >"$folder/said" 2>&1 || { cat "$folder/said"; return 1; }
    cat "$folder/said"
    grep -qE "$pattern" "$folder/said"
}

check "meson install" meson install -C "$EQUIL_BUILD_ROOT" --no-rebuild --quiet --destdir "$folder/root"
pc=$(find "$folder/root" -name equil.pc)
prefix=$(sed -n 's/^prefix=//p' "$pc")
PKG_CONFIG_PATH=$(dirname "$pc")
libraries=$(dirname "$PKG_CONFIG_PATH")
export PKG_CONFIG_PATH LD_LIBRARY_PATH=$libraries PATH=$folder/root$prefix/bin:$PATH
sed -i "s|^prefix=.*|prefix=$folder/root$prefix|" "$pc" # staged there rather than installed
flags() { pkg-config "$@" equil; }

check "pkg-config has the version" test "$(flags --modversion)" = "$(equil --version | awk '{ print $2 }')"
check "the soname has the minor version" says 'SONAME.*libequil\.so\.0\.1' readelf -d "$libraries/libequil.so"
check "the man page is there" test -s "$folder/root$prefix/share/man/man1/equil.1"

build() { # compiler, standard, source, program
    # shellcheck disable=SC2046
    $1 -std="$2" -Wall -Wextra -Werror -DCL_TARGET_OPENCL_VERSION=120 "$source/$3" -o "$folder/$4" $(flags --cflags --libs) \
        -lpthread -lm
}
build_static() {
    # shellcheck disable=SC2046
    cc -std=c11 "$source/train_graph.c" -o "$folder/train_static" $(flags --cflags) "$libraries/libequil.a" \
        $(flags --libs --static | sed 's/-lequil\b//') -lm -lpthread
}

for name in classify block train_graph threads; do
    check "$name.c builds" build cc c11 $name.c $name
done
check "classify.cpp builds" build c++ c++17 classify.cpp classify_cpp
check "train_graph.c builds with the static library" build_static

# With CMake: the example that needs nothing but the imported target, and a version that is too new.
cmake_project() { # folder, version
    mkdir "$1"
    cat >"$1/CMakeLists.txt" <<CMAKE
cmake_minimum_required(VERSION 3.18)
project(example LANGUAGES CXX)
find_package(equil $2 REQUIRED)
add_executable(classify_cmake "$source/classify.cpp")
target_compile_features(classify_cmake PRIVATE cxx_std_17)
target_link_libraries(classify_cmake PRIVATE equil::equil)
CMAKE
    cmake -S "$1" -B "$1/build" -DCMAKE_PREFIX_PATH="$folder/root$prefix"
}
refuses_newer() {
    ! cmake_project "$folder/newer" 99.0 >"$folder/said" 2>&1 && grep -q 'version.*99' "$folder/said"
}
refuses_other_minor() { # of version 0, where it may be another interface
    ! cmake_project "$folder/other" 0.0 >"$folder/said" 2>&1 && grep -q 'version.*0\.0' "$folder/said"
}
version=$(flags --modversion)
if command -v cmake >/dev/null; then
    check "CMake finds it" cmake_project "$folder/cmake" "${version%.*}"
    check "CMake builds classify.cpp" cmake --build "$folder/cmake/build"
    check "CMake refuses an older library than is asked for" refuses_newer
    check "CMake refuses another minor version" refuses_other_minor
else
    number=$((number + 4))
    for i in 3 2 1 0; do echo "ok $((number - i)) - CMake # SKIP there is no cmake"; done
fi

# A network to classify with.
python3 "$EQUIL_SOURCE_ROOT/tests/cli/make_images.py" "$folder/images" 34 >/dev/null
check "a network is trained" equil train --arch ce-resnet20 --data "$folder/images" --size 32 --epochs 1 --batch 8 --seed 1 \
    --out "$folder/run"
weights=$folder/run/model.safetensors

# What the examples say of their images has to be what the command says of the same.
agrees() { python3 "$source/agrees.py" "$weights" "$@"; }
check "classify" agrees drawn "$folder/classify" "$weights" ce-resnet20 3 32
check "classify refuses a file that is not there" bash -c "! '$folder/classify' '$folder/none' ce-resnet20 4 32"
check "classify_cpp" agrees black "$folder/classify_cpp" "$weights" ce-resnet20 3 32
if [ -x "$folder/cmake/build/classify_cmake" ]; then
    check "classify_cmake" agrees black "$folder/cmake/build/classify_cmake" "$weights" ce-resnet20 3 32
fi
check "classify_cpp says what is wrong" bash -c "'$folder/classify_cpp' '$folder/none' ce-resnet20 4 32 2>&1 | grep -q none"
check "block learns" says '^step 30: loss' "$folder/block"
check "train_graph: saved and loaded, the same logits" says 'logits differ by 0$' "$folder/train_graph" "$folder/g.safetensors"
check "train_graph learns" says '^top-1 of new images: (9[0-9]|100)' "$folder/train_graph" "$folder/g.safetensors"
check "train_graph, static" says 'logits differ by 0$' "$folder/train_static" "$folder/g.safetensors"
check "threads" says '^the same bits' "$folder/threads"
echo "1..$number"
exit $failed
