#!/usr/bin/env python3
"""Checks that lint.py finds what it is there to find: a small tree with one breach for each rule, and one without any."""
import os
import shutil
import subprocess
import sys
import tempfile

LINT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lint.py")

CLEAN = {
    "LICENSE": "x\n", "meson.build": "x\n", "bootstrap": "#!/bin/sh\n", ".ci/run": "#!/bin/sh\n",
    "include/equil/base.h": "#ifndef A_H\n#define A_H\nint eq_a(void);\n#endif\n",
    "src/base/a.c": '#include "equil/base.h"\n\nint eq_a(void) {\n    return 0; // exit() and getenv() in a comment\n}\n',
    "src/rt/b.c": '#include "base/a.h"\n#include <CL/cl.h>\n',
    "cl/a.cl": "__kernel void a_fwd(__global float *x) {\n    x[get_global_id(0)] = BLOCK;\n}\n",
    "cl/common.clh": "\n#define A\n",
    "README.md": "From `src/base/a.c`:\n\n    return 0; // exit() and getenv() in a comment\n\nText.\n",
    "src/base/meson.build": "'a.c'\n", "src/rt/meson.build": "'b.c'\n", "src/op/meson.build": "'a' 'common'\n",
}
LONG_FUNCTION = "int eq_a(void) {\n" + "    eq_b();\n" * 121 + "}\n"
BREACHES = [
    ("layers", "src/base/a.c", '#include "rt/rt.h"\n'),
    ("layers", "src/tensor/a.c", "#include <CL/cl.h>\n"),
    ("layers", "src/io/a.c", '#include "graph/graph.h"\n'),
    ("layers", "src/cli/a.c", '#include "base/base.h"\n'),
    ("layers", "src/other/a.c", "\n"),
    ("sizes", "src/base/a.c", LONG_FUNCTION),
    ("sizes", "src/base/a.c", "int a;\n" * 801),
    ("words", "src/op/a.c", "// TO" "DO: later\n"),
    ("words", "src/op/a.c", 'void f(void) {\n    getenv("A");\n}\n'),
    ("words", "src/op/a.c", 'void f(void) {\n    printf("A");\n}\n'),
    ("words", "src/op/a.c", 'void f(void) {\n    fprintf(stderr, "A");\n}\n'),
    ("words", "src/op/a.c", "void f(void) {\n    exit(1);\n}\n"),
    ("words", "cl/a.cl", "double x;\n"),
    ("words", "cl/a.cl", "half x;\n"),
    ("words", "cl/a.cl", "float x = native_exp(1.0f);\n"),
    ("words", "src/rt/a.c", "int a = CL_QUEUE_PROFILING_ENABLE;\n"),
    ("words", "src/rt/a.c", 'const char *options = "-cl-fast-relaxed-math";\n'),
    ("text", "src/base/a.c", "\tint a;\n"),
    ("text", "src/base/a.c", "int a; \n"),
    ("text", "src/base/a.c", "int a;"),
    ("text", "src/base/a.c", "// " + "a" * 126 + "\n"),
    ("root", "Makefile", "all:\n"),
    ("lists", "src/base/b.c", "\n"),
    ("lists", "cl/b.cl", "\n"),
    ("lists", "cl/b.clh", "\n"),
    ("lists", "tests/op/b.c", "\n"),
    ("lists", "tests/cli/b.sh", "\n"),
    ("readme", "README.md", "Text.\n"),
    ("readme", "README.md", "From `src/base/b.c`:\n\n    int a;\n"),
    ("readme", "README.md", "From `src/base/a.c`:\n\n    return 1;\n"),
    ("readme", "README.md", "From `src/base/a.c`:\n\nText.\n"),
    ("headers", "include/equil/base.h", "eq_status eq_a(void);\n"),
    ("headers", "include/equil/base.h", "#ifndef A_H\n#define A_H\nextern int class;\n#endif\n"),
    ("kernels", "cl/a.cl", "__kernel void a_fwd(__global float *x) {\n    int unused;\n    x[0] = 1;\n}\n"),
    ("kernels", "cl/a.cl", "#if BLOCK == 8\n#error\n#endif\n"),
    ("kernels", "cl/a.cl", "// check: -DODD=1\n#ifdef ODD\n#error\n#endif\n"),
]


def run(rule, files):
    with tempfile.TemporaryDirectory() as root:
        for name, text in files.items():
            path = os.path.join(root, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(text)
            if name in ("bootstrap", ".ci/run"):
                os.chmod(path, 0o755)
        if shutil.which("git"):
            subprocess.run(["git", "init", "-q", root], check=True)
        return subprocess.run([LINT, rule, root], capture_output=True, text=True)


def main():
    failed = 0
    for rule in ("layers", "sizes", "words", "text", "root", "lists", "readme", "headers", "kernels"):
        result = run(rule, CLEAN)
        if result.returncode not in (0, 77):
            failed += 1
            print("%s finds a breach in the clean tree:\n%s%s" % (rule, result.stdout, result.stderr))
    for rule, name, text in BREACHES:
        result = run(rule, {**CLEAN, name: text})
        if result.returncode not in (1, 77):
            failed += 1
            print("%s does not find the breach in %s: %r (exit %d)" % (rule, name, text[:60], result.returncode))
    print("%d of %d checks failed" % (failed, len(BREACHES) + 9))
    return 1 if failed else 0


sys.exit(main())
