"""Mutated files: each is read or refused in one sentence; nothing crashes, hangs, takes memory or half changes a model.

python tests/test_fuzz.py 200000      the long form, with progress
"""

import json
import random
import resource
import sys
import time

import numpy as np

import pybackprop as pb
from pybackprop import nn, optim
from pybackprop.io import load_file, save_file
from pybackprop.training.callbacks import EarlyStopping

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y = np.arange(12) % 2
NUMBERS = [
    "-1",
    "0",
    "1",
    "8",
    "2.0",
    "1e999",
    "-0",
    "true",
    "null",
    '"8"',
    "[]",
    "{}",
    str(2**31),
    str(2**63),
    "9" * 30,
]
WORDS = [
    b"F64",
    b"F16",
    b"BOOL",
    b"I8",
    b"BF16",
    b"shape",
    b"dtype",
    b"data_offsets",
    b"__metadata__",
    b"\xff",
    b"\\u0000",
]


def make():
    pb.manual_seed(0)
    return pb.Trainer(
        nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)),
        loss=nn.CrossEntropyLoss(),
        optimizer=optim.Adam(lr=optim.ReduceLROnPlateau(0.1)),
        callbacks=[EarlyStopping("loss", restore_best_weights=True)],
    )


def mutated(rng, raw):
    """One to four changes of bytes, numbers, words, lengths or pieces."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        kind = rng.randrange(9)
        at = rng.randrange(max(len(data), 1))
        if kind == 0 and data:
            data[at] = rng.randrange(256)
        elif kind == 1 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del data[at : at + rng.choice((1, 2, 8, 1000))]
        elif kind == 3:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 4, 8))))
        elif kind == 4:  # a number of the header becomes another
            digits = [i for i in range(8, len(data)) if chr(data[i]).isdigit() and not chr(data[i - 1]).isdigit()]
            if digits:
                first = last = rng.choice(digits)
                while last < len(data) and chr(data[last]).isdigit():
                    last += 1
                data[first:last] = rng.choice(NUMBERS).encode()
        elif kind == 5:  # a word becomes another
            word, other = rng.sample([*WORDS, b"F32", b"I64"], 2)
            data = data.replace(word, other, rng.choice((1, -1)))
        elif kind == 6:  # a piece comes twice, or elsewhere
            piece = data[at : at + rng.choice((4, 16, 80, 300))]
            to = rng.randrange(max(len(data), 1))
            data[to:to] = piece
        elif kind == 7:
            data[:8] = rng.choice((0, 1, len(data), 2**27, 2**63, 2**64 - 1)).to_bytes(8, "little")
        else:
            data[at:at] = rng.choice((b"[", b"{", b'{"a":', b'"', b",", b"\\")) * rng.choice((1, 2, 3000))
    if rng.random() < 0.6 and len(data) >= 8:  # most should get past the length of the header
        header = bytes(data[8:]).rfind(b"}}") + 2
        while header > 0 and header % 8:
            header += 1
        data[:8] = max(header, 0).to_bytes(8, "little")
    return bytes(data)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(folder, count, seed=0, say=lambda text: None):
    """Runs ``count`` mutated files through the readers; returns how many of each kind were read and refused."""
    rng = random.Random(seed)
    path = folder / "f"
    whole, other = make(), make()
    whole.fit(X, Y, epochs=2, batch_size=4, verbose=0)
    whole.save_checkpoint(path)
    checkpoint = path.read_bytes()
    save_file({"a": X, "b": Y, "c": np.array([True, False]), "d": X.astype("f2")}, path, {"note": "text"})
    seeds = [path.read_bytes(), checkpoint]
    tensors, metadata = load_file_of(path, checkpoint)
    content = json.loads(metadata["pybackprop.checkpoint"])
    counts = {"file": [0, 0], "checkpoint": [0, 0]}
    began, before = time.monotonic(), None
    start = peak()
    for i in range(count):
        kind = rng.choice(("file", "checkpoint"))
        if kind == "checkpoint" and rng.random() < 0.5:  # a whole file with another state in it
            text = mutated(rng, bytes(8) + json.dumps(content).encode())[8:].decode("latin1")
            save_quickly(path, tensors, {"pybackprop.checkpoint": text})
        else:
            path.write_bytes(mutated(rng, seeds[kind == "checkpoint"] if rng.random() < 0.9 else seeds[0]))
        if before is None:
            before = state(other)
        moment = time.monotonic()
        try:
            if kind == "file":
                for array in load_file(path)[0].values():
                    assert isinstance(array, np.ndarray)
            else:
                other.load_checkpoint(path)
                before = None
            counts[kind][0] += 1
        except ValueError as error:
            counts[kind][1] += 1
            assert "\n" not in str(error) and len(str(error)) < 10_000, error
        assert time.monotonic() - moment < 20, "it hangs"
        if before is not None and kind == "checkpoint" and i % 8 == 0:
            assert state(other) == before, "a refused file has changed the trainer"
        if i % 5000 == 4999:
            say(f"{i + 1} files in {time.monotonic() - began:.0f} s: {counts}, {(peak() - start) / 2**20:.1f} MB more")
    return counts, peak() - start


def state(trainer):
    arrays = dict(trainer.model.state_dict())
    for key, values in trainer._step.state_dict()["state"].items():
        arrays |= {f"{key} {name}": value for name, value in values.items()}
    rest = trainer.epoch, trainer.seed, repr(trainer.history.history), repr(trainer.optimizer.lr.state_dict())
    stopping = trainer.callbacks[0]
    return {name: a.tobytes() for name, a in arrays.items()}, rest, (stopping.best, stopping.best_epoch, stopping.wait)


def load_file_of(path, raw):
    path.write_bytes(raw)
    return load_file(path)


def save_quickly(path, tensors, metadata):
    """As save_file, without waiting for the disk."""
    fsync, pb.io.atomic.os.fsync = pb.io.atomic.os.fsync, lambda descriptor: None
    try:
        save_file(tensors, path, metadata)
    finally:
        pb.io.atomic.os.fsync = fsync


def test_mutated_files(tmp_path):
    counts, grown = fuzz(tmp_path, 4000)
    for read, refused in counts.values():
        assert read > 20 and refused > 500, counts
    assert grown < 64 * 2**20


if __name__ == "__main__":
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        print(*fuzz(Path(folder), int(sys.argv[1]), seed=int(sys.argv[2]) if len(sys.argv) > 2 else 0, say=print))
