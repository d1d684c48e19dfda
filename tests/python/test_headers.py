"""What the Python module repeats of the headers is what they say: structs, functions, constants, version. It needs a C compiler."""
import ctypes
import os
import re
import subprocess
import tempfile
import unittest

from equil import _library, core

ROOT = os.environ["EQUIL_SOURCE_ROOT"]
INCLUDE = os.path.join(ROOT, "include")
CONSTANTS = {
    "EQ_VERSION_MAJOR": _library.MAJOR, "EQ_VERSION_MINOR": _library.MINOR,
    "EQ_RELU": core._ACTIVATIONS["relu"], "EQ_ELU": core._ACTIVATIONS["elu"],
    "EQ_BRANCH_BOTH": core._BRANCHES[None], "EQ_BRANCH_DECORRELATE": core._BRANCHES["decorrelate"],
    "EQ_BRANCH_REWEIGHT": core._BRANCHES["reweight"],
    "EQ_OPENCL_F32": core._TYPES["float32"], "EQ_OPENCL_F16": core._TYPES["float16"], "EQ_OPENCL_U8": core._TYPES["uint8"],
    "EQ_OPENCL_I32": core._TYPES["int32"], "EQ_NCHW": core._LAYOUTS["NCHW"], "EQ_NHWC": core._LAYOUTS["NHWC"],
    "EQ_SESSION_ALL": core._PARTS["all"], "EQ_SESSION_FORWARD": core._PARTS["forward"], "EQ_SESSION_BACKWARD": core._PARTS["backward"],
    "EQ_LOG_ERROR": core._LEVELS["error"], "EQ_LOG_WARNING": core._LEVELS["warning"], "EQ_LOG_INFO": core._LEVELS["info"],
    "EQ_LOG_DEBUG": core._LEVELS["debug"],
}
SCALARS = {"int": ctypes.c_int, "eq_value": ctypes.c_int, "bool": ctypes.c_bool, "float": ctypes.c_float, "size_t": ctypes.c_size_t,
           "uint64_t": ctypes.c_uint64}


def read_headers():
    """Structs by their names, with the names of their members; functions with their result and parameters, as they are written."""
    text = ""
    for name in sorted(os.listdir(os.path.join(INCLUDE, "equil"))):
        with open(os.path.join(INCLUDE, "equil", name)) as file:
            text += re.sub(r"//.*", "", file.read())
    structs = {}
    for name, body in re.findall(r"struct (\w+) \{(.*?)\n?\};", text, re.S):
        members = [part for line in body.split(";") if line.strip() for part in line.split(",")]
        structs[name] = [re.search(r"(\w+)\s*(\[\w+\])?$", member.strip()).group(1) for member in members]
    functions = {}
    for before, name, inside in re.findall(r"EQ_API ([\w\s*]*?)(\w+)\(([^()]*)\);", text):
        parameters = [] if inside.strip() == "void" else [" ".join(part.split()) for part in inside.split(",")]
        functions[name] = before.strip(), parameters
    return structs, functions


def fits(declared, given, is_result=False):
    """Whether ctypes' type `given` is that of a declaration in C, a parameter with its name."""
    plain = re.sub(r"\bconst\b", "", declared)
    if not is_result:
        plain = re.sub(r"\w+(\[\w+\])?$", lambda match: "*" if match.group(1) else "", plain.strip())
    base, depth = plain.replace("*", "").strip(), plain.count("*")
    if base.startswith("cl_"):
        depth += 1  # a handle
    if base == "eq_log_fn":
        return given is _library.LogFn
    if depth == 0:
        if base == "void":
            return given is None
        if base == "eq_status":
            return given is (_library._STATUS if is_result else ctypes.c_int)
        if base.startswith("enum "):
            return given is ctypes.c_int
        return given is (_library.STRUCTS[base[len("struct "):]] if base.startswith("struct ") else SCALARS[base])
    if base == "char" and depth == 1:
        return given is ctypes.c_char_p
    if depth == 1 and (base == "void" or base.startswith("struct ") and base[len("struct "):] not in _library.STRUCTS):
        return given is ctypes.c_void_p
    if depth == 1 and base in SCALARS or base.startswith("enum "):
        return given in (ctypes.c_void_p, ctypes.POINTER(SCALARS.get(base, ctypes.c_int)))
    if depth == 1 and base == "int64_t":
        return given is ctypes.c_void_p
    struct = _library.STRUCTS.get(base[len("struct "):]) if base.startswith("struct ") else None
    inner = struct or ctypes.c_void_p
    for _ in range(depth if struct else depth - 1):
        inner = ctypes.POINTER(inner)
    return given is inner


class Headers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.structs, cls.functions = read_headers()

    def compile_and_run(self, lines):
        with tempfile.TemporaryDirectory() as folder:
            source, program = os.path.join(folder, "layout.c"), os.path.join(folder, "layout")
            with open(source, "w") as file:
                file.write("#include <stdio.h>\n#include <equil/equil.h>\n#include <equil/opencl.h>\nint main(void) {\n%s\nreturn 0; }\n"
                           % "\n".join(lines))
            subprocess.run(["cc", "-I", INCLUDE, source, "-o", program], check=True)
            return subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()

    def test_members(self):
        """By name and order: a new one in the padding would not change the size."""
        for name, struct_type in _library.STRUCTS.items():
            self.assertEqual([field for field, _ in struct_type._fields_], self.structs[name], name)

    def test_layout(self):
        lines, want = [], []
        for name, struct_type in _library.STRUCTS.items():
            lines.append('printf("%s %%zu\\n", sizeof(struct %s));' % (name, name))
            want.append("%s %d" % (name, ctypes.sizeof(struct_type)))
            for field, _ in struct_type._fields_:
                member = "((struct %s *)0)->%s" % (name, field)
                lines.append('printf("%s.%s %%zu %%zu\\n", offsetof(struct %s, %s), sizeof(%s));' % (name, field, name, field, member))
                place = getattr(struct_type, field)
                want.append("%s.%s %d %d" % (name, field, place.offset, place.size))
        self.assertEqual(self.compile_and_run(lines), want)

    def test_functions(self):
        for name, (result, arguments) in _library._FUNCTIONS.items():
            declared, parameters = self.functions[name]
            self.assertTrue(fits(declared, result, is_result=True), "%s gives %s, not %s" % (name, declared, result))
            self.assertEqual(len(arguments), len(parameters), name)
            for parameter, given in zip(parameters, arguments):
                self.assertTrue(fits(parameter, given), "%s takes '%s', not %s" % (name, parameter, given))

    def test_constants(self):
        said = self.compile_and_run(['printf("%%d\\n", (int)%s);' % name for name in CONSTANTS])
        self.assertEqual(dict(zip(CONSTANTS, map(int, said))), CONSTANTS)

    def test_version(self):
        with open(os.path.join(ROOT, "src", "python", "pyproject.toml")) as file:
            version = re.search(r'^version = "(.*)"$', file.read(), re.M).group(1)
        self.assertEqual(self.compile_and_run(['puts(EQ_VERSION);']), [version])


if __name__ == "__main__":
    unittest.main(verbosity=2)
