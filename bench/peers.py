#!/usr/bin/env python3
"""Equil and PyTorch in turn, on the same machine: medians and ratios.

    bench/peers.py --equil build/src/cli/equil [--ce-module PATH.py] [--rounds 5] [--json OUT.json]

Runs ResNet-50 and CE-ResNet-50, evaluation and training, batch 16 of 224 x 224 pixels. Every round measures each contender once, in
turn, so that whatever else the machine does, and its clocks, meet all of them; the figures are medians over the rounds. Equil runs as
`equil bench`; its batch time is the median of a run, without the start of the process. PyTorch runs in this process, in every form
that it has (channels first and last; for evaluation also traced and optimised, which folds and fuses), and its fastest form counts; forms that reach less
than 0.8 of it in the first round are not measured again. The C library is told to keep memory that PyTorch frees: as it comes, it gives every large
tensor back to the system and takes it anew, which costs ResNet-50's evaluation a fifth of its speed.

On a GPU: --torch-device cuda, and --precision for both. PyTorch then has its library try its convolutions first, and two forms more, in
which a captured step is replayed without the host. Its 16-bit evaluation has weights and images of that type, its training casts them
where PyTorch's autocast does.

PyTorch has no CE-ResNet: --ce-module names a Python file with one, whose build(NAME, classes), or model(), returns the module. Without it those rows
are left out. Needs torch and, for ResNet-50, torchvision.
"""
import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

# glibc: large blocks come from the heap, and the heap stays as large as it was.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 46), "MALLOC_TOP_PAD_": str(256 << 20)}

# Ratios of Equil's figure to another's: name, contender, mode, against; least and aim on a processor, at GOALS_AT. "batch N" is --batch.
GOALS_AT = {"torch_device": "cpu", "precision": "fp32", "batch": 16, "size": 224}
GOALS = [
    ("CE-ResNet-50 inference / PyTorch's ResNet-50, direct", "equil ce-resnet50 direct", "infer", "torch resnet50", 1.08, 1.08),
    ("CE-ResNet-50 inference / PyTorch's CE-ResNet-50, direct", "equil ce-resnet50 direct", "infer", "torch ce-resnet50", 4.0, 4.0),
    ("CE-ResNet-50 inference / PyTorch's ResNet-50, Winograd", "equil ce-resnet50", "infer", "torch resnet50", 1.35, 1.5),
    ("CE-ResNet-50 inference / PyTorch's CE-ResNet-50, Winograd", "equil ce-resnet50", "infer", "torch ce-resnet50", 5.0, 5.5),
    ("CE-ResNet-50 training / PyTorch's ResNet-50, Winograd", "equil ce-resnet50", "train", "torch resnet50", 1.25, 1.4),
    ("CE-ResNet-50 training / PyTorch's CE-ResNet-50, Winograd", "equil ce-resnet50", "train", "torch ce-resnet50", 3.4, 3.8),
    ("CE-ResNet-50 / ResNet-50, inference, Winograd", "equil ce-resnet50", "infer", "equil resnet50", 0.93, 0.93),
    ("CE-ResNet-50 / ResNet-50, training, Winograd", "equil ce-resnet50", "train", "equil resnet50", 0.92, 0.92),
    ("batch 1 / batch N, CE-ResNet-50 inference, per image", "equil ce-resnet50 batch 1", "infer", "equil ce-resnet50", 0.85, 0.85),
]


def count(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("%r is not a whole number from 1 up" % text)
    return int(text)


def duration(text):
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("%r is not a number of seconds above 0" % text)
    return value


def check_paths(parser, arguments):
    """What would fail at the end, or not tell why."""
    if not shutil.which(arguments.equil):
        parser.error("--equil %s: there is no such command" % arguments.equil)
    if arguments.ce_module and not os.path.isfile(arguments.ce_module):
        parser.error("--ce-module %s: there is no such file" % arguments.ce_module)
    if arguments.json and not os.path.isdir(os.path.dirname(arguments.json) or "."):
        parser.error("--json %s: there is no such folder" % arguments.json)
    if arguments.json and (os.path.isdir(arguments.json) or not os.access(os.path.dirname(arguments.json) or ".", os.W_OK)):
        parser.error("--json %s: cannot be written" % arguments.json)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], usage="peers.py [OPTION]...; --help lists them")
    parser.add_argument("--equil", default="equil", help="the command (default: equil)")
    parser.add_argument("--device", help="Equil's device, as equil bench --device")
    parser.add_argument("--ce-module", metavar="PATH", help="Python file whose build(NAME, classes) or model(NAME, classes) makes CE-ResNet-50")
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--batch", type=count, default=16)
    parser.add_argument("--size", type=count, default=224)
    parser.add_argument("--modes", default="infer,train", help="infer, train or both (default: infer,train)")
    parser.add_argument("--seconds", type=duration, default=4, help="to measure each contender for in a round (default: 4)")
    parser.add_argument("--torch-device", choices=("cpu", "cuda"), default="cpu", help="PyTorch's device (default: cpu)")
    parser.add_argument("--precision", choices=("fp32", "tf32", "fp16", "bf16"), default="fp32", help="of both (default: fp32)")
    parser.add_argument("--threads", type=count, default=os.cpu_count(), help="of PyTorch (default: all processors)")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    if not set(arguments.modes.split(",")) <= {"infer", "train"}:
        parser.error("--modes %s: infer, train or both" % arguments.modes)
    check_paths(parser, arguments)
    return arguments


# ---- Equil

class Equil:
    def __init__(self, arguments, arch, mode, batch, winograd):
        self.command = [
            arguments.equil, "bench", "--arch", arch, "--mode", mode, "--batch", str(batch), "--size", str(arguments.size),
            "--seconds", str(arguments.seconds), "--precision", arguments.precision, "--json", "-"]
        if arguments.device:
            self.command += ["--device", arguments.device]
        self.environment = {name: value for name, value in os.environ.items() if name not in MALLOC}
        self.environment["EQUIL_WINOGRAD"] = "1" if winograd else "0"
        self.mode, self.arch, self.identity, self.peaks, self.gflop = mode, arch, None, [], 0
        self.name = "equil %s%s%s" % (arch, "" if winograd else " direct", "" if batch == arguments.batch else " batch %d" % batch)

    def measure(self):
        done = subprocess.run(self.command, env=self.environment, stdout=subprocess.PIPE)
        if done.returncode != 0:    # it has said why
            sys.exit("peers.py: exit status %d: %s" % (done.returncode, " ".join(self.command)))
        result = json.loads(done.stdout)
        self.identity = {part: result[part] for part in ("device", "build", "setup")}
        measured = result["results"][0]
        self.peaks.append(measured["peak_gflop_per_second"])
        self.gflop = measured["conv_gflop"] / measured["batch"]
        return measured["images_per_second"]


# ---- PyTorch

def load_module(path):
    spec = importlib.util.spec_from_file_location("ce_module", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("build", "model"):
        if hasattr(module, name):
            return getattr(module, name)
    sys.exit("%s has neither build(NAME, classes) nor model(NAME, classes)" % path)


def build_network(torch, arguments, arch):
    if arch == "resnet50":
        import torchvision
        return torchvision.models.resnet50().float()
    network = load_module(arguments.ce_module)(arch, 1000).float()
    for name, value in network.named_buffers():    # evaluation divides by it; a new network has 0
        if name.endswith("running_scale"):
            value.fill_(1)
    return network


class Torch:
    """One form of one network. A step runs a batch, and in training the gradients and SGD's update."""

    def __init__(self, torch, arguments, arch, mode, form):
        self.torch, self.mode, self.form, self.seconds, self.batch = torch, mode, form, arguments.seconds, arguments.batch
        self.name, self.device, self.run = "torch %s" % arch, arguments.torch_device, self.step
        layout = torch.channels_last if "last" in form else torch.contiguous_format
        narrow = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(arguments.precision)
        self.narrow, dtype = (narrow, torch.float32) if mode == "train" else (None, narrow or torch.float32)
        network = build_network(torch, arguments, arch).to(self.device, dtype, memory_format=layout)
        images = torch.randn(arguments.batch, 3, arguments.size, arguments.size)
        self.images = images.to(self.device, dtype, memory_format=layout)
        self.labels = (torch.arange(arguments.batch) * 7 % 1000).to(self.device)
        network.train(mode == "train")
        if "traced" in form:
            with torch.no_grad():
                network = torch.jit.trace(network, self.images)
                network = torch.jit.optimize_for_inference(torch.jit.freeze(network))
        self.network = network
        if mode == "train":
            self.optimizer = torch.optim.SGD(network.parameters(), 1e-4, momentum=0.9, weight_decay=1e-4)
            self.loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
        if "replayed" in form:
            self.capture()

    def capture(self):
        """A step as one graph of the device's: what it takes without the host's share."""
        other = self.torch.cuda.Stream()
        other.wait_stream(self.torch.cuda.current_stream())
        with self.torch.cuda.stream(other):
            for _ in range(3):
                self.step()
        self.torch.cuda.current_stream().wait_stream(other)
        self.graph = self.torch.cuda.CUDAGraph()
        with self.torch.cuda.graph(self.graph):
            result = self.step()

        def replay():
            self.graph.replay()
            return result
        self.run = replay

    def wait(self):
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def step(self):
        if self.mode == "infer":
            with self.torch.no_grad():
                return self.network(self.images)
        self.optimizer.zero_grad(set_to_none=True)
        with self.torch.autocast(self.device, self.narrow, enabled=self.narrow is not None):
            loss = self.loss(self.network(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss

    def measure(self):
        for _ in range(2):
            if not bool(self.torch.isfinite(self.run()).all()):
                sys.exit("%s, %s: the result is not finite" % (self.name, self.form))
        times, start = [], time.perf_counter()
        while len(times) < 3 or time.perf_counter() - start < self.seconds:
            begin = time.perf_counter()
            self.run()
            self.wait()
            times.append(time.perf_counter() - begin)
        return self.batch / statistics.median(times)


def make_torch(arguments, modes):
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: Equil alone")
        return [], None
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = arguments.precision == "tf32"
    made = []
    for arch in ["resnet50"] + (["ce-resnet50"] if arguments.ce_module else []):
        for mode in modes:
            forms = ["channels first", "channels last"]
            if mode == "infer":
                forms += ["traced, channels first", "traced, channels last"]
            if arguments.torch_device == "cuda":
                forms += ["replayed, channels first", "replayed, channels last"]
            for form in forms:
                try:
                    made.append(Torch(torch, arguments, arch, mode, form))
                    made[-1].run()
                except Exception as error:    # a form that this version cannot make
                    print("torch %s %s, %s: left out: %s" % (arch, mode, form, str(error).strip().split("\n")[0]))
                    made = [one for one in made if (one.name, one.mode, one.form) != ("torch " + arch, mode, form)]
    return made, torch.__version__


def make_equil(arguments, modes):
    made = []
    for mode in modes:
        made.append(Equil(arguments, "resnet50", mode, arguments.batch, True))
        made.append(Equil(arguments, "ce-resnet50", mode, arguments.batch, True))
        if mode == "infer" and arguments.precision == "fp32":
            made.append(Equil(arguments, "resnet50", mode, arguments.batch, False))
            made.append(Equil(arguments, "ce-resnet50", mode, arguments.batch, False))
        if mode == "infer" and arguments.batch != 1:
            made.append(Equil(arguments, "ce-resnet50", mode, 1, True))
    return made


# ---- the run

def key_of(contender):
    return (contender.name, contender.mode, getattr(contender, "form", ""))


def drop_slow(contenders, figures):
    """Without the forms that cannot become the fastest of theirs."""
    best = best_forms(figures)
    return [one for one in contenders if figures[key_of(one)][0] >= 0.8 * best[(one.name, one.mode)][0]]


def run_rounds(contenders, rounds):
    """Figures of each contender, one a round. Odd rounds go the other way round."""
    figures = {key_of(contender): [] for contender in contenders}
    for number in range(rounds):
        for contender in (contenders if number % 2 == 0 else contenders[::-1]):
            figures[key_of(contender)].append(contender.measure())
            print("round %d: %-60s %8.2f images/s" % (number + 1, ", ".join(part for part in key_of(contender) if part),
                                                     figures[key_of(contender)][-1]), flush=True)
        if number == 0:
            contenders = drop_slow(contenders, figures)
    return figures


def best_forms(figures):
    """(name, mode) -> (median, lowest, highest, form) of the fastest form."""
    best = {}
    for (name, mode, form), values in figures.items():
        row = (statistics.median(values), min(values), max(values), form)
        if (name, mode) not in best or row[0] > best[(name, mode)][0]:
            best[(name, mode)] = row
    return best


def shares_of_peak(equil, best):
    """(name, mode) -> images/s times the arithmetic of an image's convolutions, counted as direct sums, over the device's multiply-add
    peak. What a ratio to PyTorch can be depends on how near PyTorch comes to it on this machine."""
    peak = statistics.median(peak for one in equil for peak in one.peaks)
    gflop = {(one.arch, one.mode): one.gflop for one in equil}
    return peak, {key: best[key][0] * gflop[arch, key[1]] / peak for key in best for arch in [key[0].split()[1]] if (arch, key[1]) in gflop}


def ratio_rows(best, batch, has_goals):
    rows = []
    for title, name, mode, against, least, aim in GOALS:
        if (name, mode) in best and (against, mode) in best:
            ratio = best[(name, mode)][0] / best[(against, mode)][0]
            row = {"figure": title.replace("batch N", "batch %d" % batch), "ratio": ratio}
            rows.append({**row, "at_least": least, "aim": aim, "reached": ratio >= least} if has_goals else row)
    return rows


def main():
    arguments = parse_arguments()
    if any(os.environ.get(name) != value for name, value in MALLOC.items()):
        os.execve(sys.executable, [sys.executable] + sys.orig_argv[1:], {**os.environ, **MALLOC})
    modes = arguments.modes.split(",")
    equil = make_equil(arguments, modes)
    torch, torch_version = make_torch(arguments, modes)
    contenders = []
    for place in range(max(len(equil), len(torch))):    # in turn
        contenders += equil[place:place + 1] + torch[place:place + 1]
    figures = run_rounds(contenders, arguments.rounds)
    best, identity = best_forms(figures), equil[0].identity
    print("\n%s, driver %s, equil %s (%s)%s; %s; batch %d of %d x %d pixels; %d rounds" % (
        identity["device"]["name"], identity["device"]["driver"], identity["build"]["version"], identity["build"]["commit"],
        "; PyTorch %s %s" % (torch_version, "on CUDA" if arguments.torch_device == "cuda" else "with %d threads" % arguments.threads)
        if torch_version else "", arguments.precision, arguments.batch, arguments.size, arguments.size, arguments.rounds))
    peak, shares = shares_of_peak(equil, best)
    print("\n%-30s %-6s %10s %10s %10s  %s" % ("contender", "mode", "images/s", "lowest", "highest", "form"))
    for (name, mode, form), values in sorted(figures.items()):
        mark = "  <- the fastest" if form and best[(name, mode)][3] == form else ""
        print("%-30s %-6s %10.2f %10.2f %10.2f  %s%s" % (name, mode, statistics.median(values), min(values), max(values), form, mark))
    print("\nconvolutions, counted as direct sums, of the multiply-add peak of %.1f GFLOP/s (all of the time taken for theirs)" % peak)
    for (name, mode), share in sorted(shares.items()):
        print("%-30s %-6s %10.3f" % (name, mode, share))
    has_goals = all(getattr(arguments, name) == value for name, value in GOALS_AT.items())
    print("\n%-62s %8s%s" % ("ratio of medians", "", "  at least    aim" if has_goals else ""))
    rows = ratio_rows(best, arguments.batch, has_goals)
    for row in rows:
        print("%-62s %8.3f" % (row["figure"], row["ratio"]), end="")
        print(" %9.2f %6.2f  %s" % (row["at_least"], row["aim"], "reached" if row["reached"] else "missed") if has_goals else "")
    if arguments.json:
        document = {"format": "equil-peers", "format_version": 1, "identity": identity, "torch": torch_version,
                    "threads": arguments.threads, "torch_device": arguments.torch_device,
                    "precision": arguments.precision, "batch": arguments.batch, "size": arguments.size, "rounds": arguments.rounds,
                    "contenders": [{"name": name, "mode": mode, "form": form, "images_per_second": values}
                                   for (name, mode, form), values in figures.items()], "ratios": rows,
                    "peak_gflop_per_second": peak,
                    "shares_of_peak": [{"name": name, "mode": mode, "share": share} for (name, mode), share in sorted(shares.items())]}
        with open(arguments.json + ".part", "w") as file:
            json.dump(document, file, indent=2)
            file.write("\n")
        os.replace(arguments.json + ".part", arguments.json)


main()
