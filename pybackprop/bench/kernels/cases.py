"""What is computed: kinds of kernels with their shapes, inputs, and what they give in double precision."""

import dataclasses
import math

import numpy as np

__all__ = ["KERNELS", "Kernel"]

_BYTES = 4  # of a float32


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One piece of work.

    Attributes:
        kind: ``"linear forward"`` (bias and ReLU with it), ``"linear input gradient"`` (with ReLU's derivative),
            ``"linear weight gradient"`` (with derivative and bias gradient), ``"matmul"``, ``"exp"``, ``"sigmoid"``,
            ``"tanh"``, ``"gelu"``, ``"cross_entropy"`` (loss and gradient), ``"layer_norm"`` (forward and backward),
            ``"adam"`` (an update).
        shape: (rows, in, out) of a linear layer, (m, k, n) of a product, (elements,), (rows, columns), (parameters,).
    """

    kind: str
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """What tables and the command line call it, as ``linear forward 64x784x128``."""
        return f"{self.kind} {'x'.join(map(str, self.shape))}"

    @property
    def flops(self) -> int:
        """Floating-point operations of a matrix product; 0 for everything that memory limits."""
        return 2 * math.prod(self.shape) if self.kind == "matmul" or self.kind.startswith("linear") else 0

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes that have to be read and written at least, and bytes of the memory they lie in; 0 if ``flops``.

        A function reads and writes each element once. Cross-entropy reads scores and writes gradients; layer norm reads
        x, writes y, reads x and dy, writes dx; Adam reads w, g, m, v and writes w, m, v.
        """
        moved, held = {"cross_entropy": (2, 2), "layer_norm": (5, 4), "adam": (7, 4)}.get(self.kind, (2, 2))
        n = 0 if self.flops else math.prod(self.shape) * _BYTES
        return moved * n, held * n

    def data(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Float32 inputs by name."""
        rng = np.random.default_rng(seed)

        def normal(*shape: int) -> np.ndarray:
            return rng.normal(size=shape).astype(np.float32)

        if self.kind.startswith("linear"):
            rows, i, o = self.shape
            return {
                "x": normal(rows, i),
                "w": normal(o, i) * np.float32(i**-0.5),
                "b": normal(o),
                "dy": normal(rows, o),
            }
        if self.kind == "matmul":
            m, k, n = self.shape
            return {"a": normal(m, k), "b": normal(k, n)}
        if self.kind == "cross_entropy":
            return {"x": normal(*self.shape), "labels": rng.integers(0, self.shape[1], self.shape[0])}
        if self.kind == "layer_norm":
            rows, width = self.shape
            return {"x": normal(rows, width), "w": normal(width), "b": normal(width), "dy": normal(rows, width)}
        if self.kind == "adam":
            return {"w": normal(*self.shape), "g": normal(*self.shape)}
        return {"x": normal(*self.shape)}

    def expected(self, data: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The results, from float64: a few rows of them where that is enough to tell right from wrong."""
        if self.kind == "adam":  # its first step moves every weight by lr, up to eps
            w, g = (data[name][:1000].astype(np.float64) for name in ("w", "g"))
            return [w - 1e-3 * g / (np.abs(g) + 1e-8)]
        d = {name: a.astype(np.float64) if a.dtype.kind == "f" else a for name, a in data.items()}
        if self.kind.startswith("linear"):
            y = np.maximum(d["x"] @ d["w"].T + d["b"], 0)
            dz = d["dy"] * (y > 0)
            return {
                "linear forward": [y],
                "linear input gradient": [dz @ d["w"]],
                "linear weight gradient": [dz.T @ d["x"], dz.sum(axis=0)],
            }[self.kind]
        if self.kind == "matmul":
            return [d["a"][:8] @ d["b"]]
        if self.kind == "cross_entropy":
            e = np.exp(d["x"] - d["x"].max(axis=1, keepdims=True))
            p = e / e.sum(axis=1, keepdims=True)
            rows = np.arange(len(p))
            loss = -np.log(p[rows, d["labels"]]).mean()
            p[rows, d["labels"]] -= 1
            return [np.array(loss), p / len(p)]
        if self.kind == "layer_norm":
            deviation = d["x"] - d["x"].mean(axis=1, keepdims=True)
            root = np.sqrt((deviation**2).mean(axis=1, keepdims=True) + 1e-5)
            z, dz = deviation / root, d["dy"] * d["w"]
            dx = (dz - dz.mean(axis=1, keepdims=True) - z * (dz * z).mean(axis=1, keepdims=True)) / root
            return [z * d["w"] + d["b"], dx, (d["dy"] * z).sum(axis=0), d["dy"].sum(axis=0)]
        x = d["x"]
        if self.kind == "gelu":
            return [x * 0.5 * (1 + np.array([math.erf(v) for v in x * 0.5**0.5]))]
        if self.kind == "sigmoid":
            return [1 / (1 + np.exp(-x))]
        return [np.exp(x) if self.kind == "exp" else np.tanh(x)]


_LINEAR = [
    Kernel(f"linear {what}", (rows, i, o))
    for i, o in ((784, 128), (512, 512), (1024, 1024))
    for what in ("forward", "input gradient", "weight gradient")
    for rows in (32, 64, 128, 256)
]

KERNELS = (
    *_LINEAR,
    Kernel("matmul", (1024, 1024, 1024)),
    Kernel("matmul", (2048, 2048, 2048)),
    *(Kernel(kind, (16384,)) for kind in ("exp", "sigmoid", "tanh", "gelu")),
    Kernel("cross_entropy", (256, 1000)),
    Kernel("layer_norm", (512, 768)),
    Kernel("adam", (10_485_760,)),
)
