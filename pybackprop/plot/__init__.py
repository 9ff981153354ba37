"""Pictures of a training: learning curves, confusion matrices. They need matplotlib (extra ``plot``).

Every function gives a matplotlib Figure, which a notebook shows, and writes it if there is a ``path``. No window is
opened and no setting of matplotlib is changed.
"""

from __future__ import annotations

from .confusion import confusion_matrix
from .curves import learning_curves

__all__ = ["confusion_matrix", "learning_curves"]
