#!/usr/bin/env python3
"""Rules that no compiler checks: lint.py RULE SOURCE_ROOT [BUILD_ROOT]. Prints each breach; exits 1 on any, 77 where a tool is missing."""
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_COLUMNS = 800, 120, 128

# What the sources of a layer may include besides their own folder and include/equil.
BELOW_RT = ["base", "tensor"]
LAYERS = {
    "base": [],
    "tensor": ["base"],
    "rt": BELOW_RT,
    "op": BELOW_RT + ["rt"],
    "graph": BELOW_RT + ["rt", "op"],
    "model": BELOW_RT + ["rt", "op", "graph"],
    "io": BELOW_RT,
    "train": BELOW_RT + ["rt", "op", "graph", "model", "io"],
    "verify": BELOW_RT + ["rt", "op", "graph", "model", "io", "train"],
    "cli": ["verify"],
}
# System headers that belong to one layer alone.
SYSTEM_OF_LAYER = {"CL/": ["rt"], "clblast": ["rt"], "jansson.h": ["io", "train", "cli"], "jpeglib.h": ["io"], "spng.h": ["io"]}
ROOT_ENTRIES = {"include", "src", "cl", "tests", "bench", "meson.build", "meson_options.txt", "README.md", "LICENSE", "bootstrap"}
TEXT_ENDINGS = (".c", ".h", ".cl", ".clh", ".py", ".sh", ".build", ".txt", ".md", ".1")
SKIPPED = 77


def tracked(root):
    """Files of the project: what git knows or would add; without git, everything outside .git and build*."""
    try:
        out = subprocess.run(["git", "-C", root, "ls-files", "-co", "--exclude-standard"], check=True, capture_output=True, text=True).stdout
        names = out.split("\n")
    except (OSError, subprocess.CalledProcessError):
        names = []
        for folder, folders, files in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith((".git", "build", "__pycache__"))]
            names += [os.path.relpath(os.path.join(folder, name), root) for name in files]
    return sorted(name for name in set(names) if name and os.path.isfile(os.path.join(root, name)))


def lines_of(root, name):
    with open(os.path.join(root, name), encoding="utf-8") as file:
        return file.read().split("\n")


def blank(match):
    return re.sub(r"[^\n]", " ", match.group(0))


def code_of(root, name):
    """Text without comments and without the contents of strings; line numbers stay."""
    text = "\n".join(lines_of(root, name))
    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', blank, text, flags=re.S)


def find(root, names, pattern, says):
    for name in names:
        for number, line in enumerate(code_of(root, name).split("\n"), 1):
            match = re.search(pattern, line)
            if match:
                yield "%s:%d: %s: %s" % (name, number, says, match.group(0))


def in_folder(names, folder, endings):
    return [name for name in names if name.startswith(folder + "/") and name.endswith(endings)]


def check_layers(root, names):
    for name in in_folder(names, "src", (".c", ".h")):
        layer = name.split("/")[1]
        if layer not in LAYERS:
            yield "%s: the folder is not a layer" % name
            continue
        for number, line in enumerate(lines_of(root, name), 1):
            match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if not match:
                continue
            quoted, path = match.group(1) == '"', match.group(2)
            where = "%s:%d: " % (name, number)
            if quoted and path == "embedded.h":
                if layer != "rt":
                    yield where + "kernel text belongs to rt"
            elif quoted and "/" in path:
                other = path.split("/")[0]
                if other != "equil" and other != layer and other not in LAYERS[layer]:
                    yield where + "%s may not use %s" % (layer, path)
            elif quoted and not os.path.exists(os.path.join(root, "src", layer, path)):
                yield where + "%s is not a file of this layer" % path
            elif not quoted:
                for start, owners in SYSTEM_OF_LAYER.items():
                    if path.startswith(start) and layer not in owners:
                        yield where + "<%s> belongs to %s" % (path, ", ".join(owners))


def check_sizes(root, names):
    for name in names:
        if not name.endswith((".c", ".h", ".cl", ".clh", ".py")):
            continue
        lines = lines_of(root, name)
        if len(lines) - 1 > MAX_FILE_LINES:
            yield "%s: %d lines, %d are allowed" % (name, len(lines) - 1, MAX_FILE_LINES)
        if name.endswith(".py"):
            continue
        start = None
        for number, line in enumerate(lines, 1):
            if start is None and re.match(r"^(\S.*\)|\s.*\)|)\s*\{$", line) and not line.startswith((" " * 4 + "if", " " * 4 + "for")):
                start = number
            elif start is not None and line.startswith("}"):
                if number - start > MAX_FUNCTION_LINES:
                    yield "%s:%d: the function has %d lines, %d are allowed" % (name, start, number - start, MAX_FUNCTION_LINES)
                start = None


def check_words(root, names):
    sources = in_folder(names, "src", (".c", ".h"))
    library = [name for name in sources if not name.startswith("src/cli/")]
    # The words are spelled in two parts here so that this file does not find itself.
    for name in names:
        if not name.endswith((".c", ".h", ".cl", ".clh", ".py", ".sh", ".build")):
            continue
        for number, line in enumerate(lines_of(root, name), 1):
            match = re.search(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b|not imple" r"mented|place" r"holder", line)
            if match:
                yield "%s:%d: unfinished: %s" % (name, number, match.group(0))
    # `equil doctor` looks at variables of drivers and loaders.
    yield from find(root, [name for name in sources if name not in ("src/base/options.c", "src/cli/doctor.c")], r"\b(secure_)?getenv\s*\(",
                    "the environment is read in src/base/options.c alone")
    yield from find(root, library, r"\b(printf|vprintf|puts|putchar|perror|exit|_exit|_Exit|abort)\s*\(", "the library neither prints nor exits")
    yield from find(root, library, r"\b(stdout|stderr)\b", "the library does not print")
    kernels = in_folder(names, "cl", (".cl", ".clh"))
    yield from find(root, kernels, r"\b(double\d*|half\d*|atomic_\w+|atom_\w+|native_\w+|printf)\b", "not portable, or not reproducible")
    # What drivers get wrong: sub-buffers' alignment, and timestamps of commands. Options that change results are not for the library.
    yield from find(root, library, r"\b(clGetEventProfilingInfo|CL_QUEUE_PROFILING_ENABLE)\b", "drivers get it wrong")
    # Fills far from a buffer's beginning need a part of it, and keep to the alignment.
    yield from find(root, [name for name in library if name != "src/rt/queue.c"], r"\bclCreateSubBuffer\b", "drivers get it wrong")
    for name in library:
        for number, line in enumerate(lines_of(root, name), 1):
            if re.search(r"-cl-(fast-relaxed-math|finite-math-only|unsafe-math|denorms)", line):
                yield "%s:%d: an option that changes results" % (name, number)
    yield from find(root, [name for name in kernels if not name.endswith("common.clh")], r"\bfma\s*\(", "EQ_MAD is for multiply-add")


def check_text(root, names):
    for name in names:
        if not name.endswith(TEXT_ENDINGS) and name not in ("bootstrap", ".ci/run"):
            continue
        try:
            lines = lines_of(root, name)
        except UnicodeDecodeError:
            yield "%s: not UTF-8" % name
            continue
        if lines[-1] != "" or (len(lines) > 1 and lines[-2] == ""):
            yield "%s: has to end with one newline" % name
        for number, line in enumerate(lines, 1):
            where = "%s:%d: " % (name, number)
            if "\t" in line:
                yield where + "tab"
            if line != line.rstrip():
                yield where + "blanks at the end"
            if len(line) > MAX_COLUMNS and name.endswith((".c", ".h", ".cl", ".clh")):
                yield where + "%d columns, %d are allowed" % (len(line), MAX_COLUMNS)
            if name.endswith((".c", ".h", ".cl", ".clh")) and not line.isascii():
                yield where + "not ASCII"


def check_root(root, names):
    for entry in sorted({name.split("/")[0] for name in names}):
        if not entry.startswith(".") and entry not in ROOT_ENTRIES:
            yield "%s: does not belong in the root folder" % entry
    for entry in ("LICENSE", "meson.build", "bootstrap", ".ci/run"):
        if entry not in names:
            yield "%s: missing" % entry
    for entry in ("bootstrap", ".ci/run"):
        if entry in names and not os.access(os.path.join(root, entry), os.X_OK):
            yield "%s: not executable" % entry


def check_lists(root, names):
    """Every source, kernel and test is named in a list of a meson.build, or sourced by those; nothing is left lying about."""
    lists, sourced = {}, {"tests/cli/tap.sh"}

    def is_listed(build_file, word):
        if build_file not in lists:
            path = os.path.join(root, build_file)
            lines = lines_of(root, build_file) if os.path.exists(path) else []
            lists[build_file] = {word for line in lines for word in re.findall(r"'([^']*)'", line.split("#")[0])}
        return word in lists[build_file]

    for name in names:
        folder, base = os.path.split(name)
        stem, ending = os.path.splitext(base)
        if name in sourced:
            continue
        if folder in ("src/op", "tests/op") and ending == ".c" or folder == "cl" and ending in (".cl", ".clh"):
            place, word = "src/op/meson.build", stem
        elif re.match(r"src/\w+$", folder) and ending == ".c":
            place, word = folder + "/meson.build", base
        elif folder == "tests/support" and ending in (".c", ".sh"):
            place, word = "tests/meson.build", "support/" + base
        elif folder == "tests/lint" and base != "lint.py" and ending in (".c", ".sh", ".py"):
            place, word = folder + "/meson.build", base
        elif re.match(r"tests/\w+$", folder) and folder.split("/")[1] in LAYERS and ending in (".c", ".sh"):
            place, word = "tests/meson.build", base if ending == ".sh" else stem
        else:
            continue
        if not is_listed(place, word):
            yield "%s: not in a list of %s" % (name, place)


def check_readme(root, names):
    """What README.md shows of a file is in that file, line for line and in order; "..." stands for what is left out."""
    lines = lines_of(root, "README.md") if "README.md" in names else []
    num = 0
    for number, line in enumerate(lines, 1):
        match = re.search(r"From `([^`]+)`:$", line)
        if not match:
            continue
        num += 1
        name = match.group(1)
        if name not in names:
            yield "README.md:%d: there is no %s" % (number, name)
            continue
        source, at = lines_of(root, name), 0
        for shown, text in enumerate(lines[number:], number + 1):
            if text and not text.startswith("    "):
                break
            if text.strip() in ("", "..."):
                continue
            if text not in source[at:]:
                yield "README.md:%d: not in %s, or not in this order: %s" % (shown, name, text.strip())
                break
            at = source.index(text, at) + 1
        if not at:
            yield "README.md:%d: nothing of %s is shown" % (number, name)
    if lines and not num:
        yield "README.md: it shows no example"


def run_compiler(command, about):
    result = subprocess.run(command, capture_output=True, text=True)
    return [] if result.returncode == 0 else ["%s: %s\n%s" % (about, " ".join(command), result.stderr)]


def run_all(jobs):
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        for found in pool.map(lambda job: run_compiler(*job), jobs):
            yield from found


def check_headers(root, names):
    """Each public header compiles alone, as C11 and as C++17."""
    headers = in_folder(names, "include", (".h",))
    if not headers:
        yield "include: no headers"
    include = "-I" + os.path.join(root, "include")
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for name in headers:
            stem = os.path.join(folder, name.replace("/", "_"))
            for ending, command in ((".c", ["cc", "-std=c11"]), (".cc", ["c++", "-std=c++17"])):
                if not shutil.which(command[0]):
                    yield "%s is missing" % command[0]
                    return
                with open(stem + ending, "w") as file:
                    file.write('#include "%s"\n#include "%s"\n' % ((name[len("include/"):],) * 2))
                flags = ["-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror", include, stem + ending]
                jobs.append((command + flags, name))
        yield from run_all(jobs)


def check_kernels(root, names):
    """Each kernel file passes clang's OpenCL front end with several block sizes, and with the options of its "// check: -D..." lines."""
    common = os.path.join(root, "cl/common.clh")
    flags = ["clang", "-x", "cl", "-cl-std=CL1.2", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Xclang", "-finclude-default-header",
             "-Xclang", "-cl-ext=-cl_khr_fp64,-cl_khr_fp16", "-include", common]
    kernels = in_folder(names, "cl", (".cl",))
    jobs = []
    for name in kernels:
        variants = [["-DBLOCK=16", "-DEQ_FMA=1"], ["-DBLOCK=8", "-DEQ_FMA=1"], ["-DBLOCK=4", "-DEQ_FMA=0"]]
        for line in lines_of(root, name):
            match = re.match(r"// check: (.*)", line)
            if match:
                variants.append((["-DBLOCK=16"] if "-DBLOCK" not in line else []) + ["-DEQ_FMA=1"] + match.group(1).split())
        text = "\n".join(lines_of(root, name))
        # Only words, as conv2d_matrix_filter.cl.
        unused = ["-Wno-unused-function"] if '#include "matrix.clh"' in text and "EQ_TILE" not in text else []
        jobs += [(flags + unused + variant + [os.path.join(root, name)], name) for variant in variants]
    print("%d kernel files, %d variants" % (len(kernels), len(jobs)))
    yield from run_all(jobs)


def check_exports(build):
    """libequil.so exports eq_ symbols and nothing else."""
    library = os.path.join(build, "src/libequil.so")
    out = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    symbols = [line.split()[-1] for line in out.splitlines()]
    if "eq_version" not in symbols:
        yield "%s: eq_version is not exported" % library
    for symbol in symbols:
        if not symbol.startswith("eq_"):
            yield "%s exports %s" % (library, symbol)


RULES = {"layers": check_layers, "sizes": check_sizes, "words": check_words, "text": check_text, "root": check_root, "lists": check_lists,
         "readme": check_readme, "headers": check_headers, "kernels": check_kernels}


def main():
    rule, root = sys.argv[1], os.path.abspath(sys.argv[2])
    needed = {"kernels": "clang", "exports": "nm"}.get(rule)
    if needed and not shutil.which(needed):
        print("skipped: %s is not installed" % needed)
        return SKIPPED
    if rule == "exports":
        breaches = list(check_exports(sys.argv[3]))
    else:
        breaches = list(RULES[rule](root, tracked(root)))
    for breach in breaches:
        print(breach)
    print("%s: %d breaches" % (rule, len(breaches)))
    return 1 if breaches else 0


sys.exit(main())
