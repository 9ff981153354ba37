"""The cases of ``python -m benchmarks``: multilayer perceptrons from a control loop's to one that fills the caches."""

from pybackprop.bench import Case, FitCase

STEPS = (
    Case((2, 16, 2), 4, loss="mse", optimizer="sgd", lr=0.01),
    Case((2, 16, 2), 4, loss="mse"),
    Case((4, 64, 64, 2), 32, activation="tanh", loss="mse"),
    Case((64, 64, 10), 32),
    Case((784, 128, 10), 64, optimizer="sgd", lr=0.05),
    Case((784, 128, 10), 64),
    Case((784, 512, 512, 10), 128, batches=16),
    Case((1024, 2048, 2048, 2048, 1000), 256, batches=4, lr=1e-4),
)
FITS = (
    FitCase((784, 128, 10), 64, epochs=5),
    FitCase((32, 256, 128, 1), 256, loss="mse", epochs=10),
)
CROWDED = (Case((784, 128, 10), 64), Case((784, 512, 512, 10), 128, batches=16))
