#!/usr/bin/env python3
"""Kills trainings at random moments with SIGKILL and resumes them, until each is done: kill9.py PATH_OF_EQUIL. TAP on stdout.

EQUIL_KILLS is how often (default 10), EQUIL_KILL_SEED the seed of the moments (default: the day). Every run that was killed must
end with the bits, the log and the files of one that was not."""
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

EQUIL = sys.argv[1]
KILLS = int(os.environ.get("EQUIL_KILLS", "10"))
SEED = int(os.environ.get("EQUIL_KILL_SEED", time.strftime("%Y%m%d")))
# Short epochs: every one writes the weights and a checkpoint.
OPTIONS = ["--arch", "ce-resnet20", "--data", "shapes", "--size", "16", "--batch", "64", "--epochs", "8", "--lr", "0.005", "--seed", "3"]
FILES = ["best.safetensors", "checkpoint.safetensors", "log.jsonl", "model.safetensors"]


def command(folder, data):
    if not os.path.exists(os.path.join(folder, "checkpoint.safetensors")):
        for name in ("best.safetensors", "model.safetensors"):  # killed before its first checkpoint: a new run takes no such folder
            if os.path.exists(os.path.join(folder, name)):
                os.remove(os.path.join(folder, name))
    options = list(OPTIONS)
    options[options.index("shapes")] = data
    return [EQUIL, "train", *options, "--out", folder] + (["--resume"] if os.path.exists(os.path.join(folder, "checkpoint.safetensors")) else [])


def life(folder, data, seconds):
    """Runs the training for so long at most; (whether it was killed, exit code, what it printed)."""
    process = subprocess.Popen(command(folder, data), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        return process.returncode == -signal.SIGKILL, process.returncode, errors
    return False, process.returncode, errors


def log_of(folder):
    """The log without what differs between two runs of the same training: speeds and memory."""
    with open(os.path.join(folder, "log.jsonl")) as file:
        lines = [json.loads(line) for line in file]
    return [{key: value for key, value in line.items() if not key.endswith(("_per_second", "_bytes")) and key != "options"} for line in lines]


def differences(folder, whole):
    found = []
    if sorted(os.listdir(folder)) != FILES:
        found.append(f"files are {sorted(os.listdir(folder))}")
    for name in FILES:
        if name.endswith(".safetensors"):
            with open(os.path.join(folder, name), "rb") as one, open(os.path.join(whole, name), "rb") as other:
                if one.read() != other.read():
                    found.append(f"{name} has other bits")
    if log_of(folder) != log_of(whole):
        found.append(f"the log is another: {log_of(folder)}, not {log_of(whole)}")
    return found


def fail(text):
    print("not ok 1 - killed and resumed")
    for line in text.splitlines():
        print("# " + line)
    sys.exit(1)


def main():
    moments = random.Random(SEED)
    print("1..1", flush=True)
    with tempfile.TemporaryDirectory() as root:
        data, whole = os.path.join(root, "data"), os.path.join(root, "whole")
        maker = os.path.join(os.path.dirname(os.path.abspath(__file__)), "make_images.py")
        subprocess.run([sys.executable, maker, data, "70", "16"], check=True)
        life(os.path.join(root, "warm"), data, None)
        begin = time.monotonic()
        _, code, errors = life(whole, data, None)
        seconds = time.monotonic() - begin
        if code != 0 or sorted(os.listdir(whole)) != FILES:
            fail(f"the undisturbed run: exit code {code}, {sorted(os.listdir(whole))}\n{errors}")
        killed = runs = lives = 0
        while killed < KILLS or lives:
            folder = os.path.join(root, f"run{runs}")
            was_killed, code, errors = life(folder, data, moments.uniform(0, 0.7 * seconds) if killed < KILLS else None)
            if was_killed:
                killed, lives = killed + 1, lives + 1
                continue
            found = [f"exit code {code}\n{errors}"] if code != 0 else differences(folder, whole)
            if found:
                fail(f"seed {SEED}, run {runs}, killed {lives} times:\n" + "\n".join(found))
            runs, lives = runs + 1, 0
        print(f"ok 1 - killed {killed} times in {runs} runs of {seconds:.1f} s, and resumed to the same bits; seed {SEED}")


main()
