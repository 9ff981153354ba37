# distutils: language = c++
# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Feeders: what writes minibatches into a running program's input buffers without Python in between.

A feeder is a C function with a context (csrc/core/feeder.h), handed to ``Stepper.run`` as a capsule. :class:`ArrayFeeder`
gathers, casts and normalises rows of arrays or memory maps; :class:`PrefetchFeeder` does the same one batch ahead on a
thread of its own.
"""
import numpy as np

from cpython.buffer cimport PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from cpython.pycapsule cimport PyCapsule_GetContext, PyCapsule_New, PyCapsule_SetContext
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from libcpp.vector cimport vector

cdef extern from "core/feeder.h":
    const char* PBP_FEEDER_CAPSULE
    ctypedef struct pbp_feeder:
        int (*fill)(void* context, int64_t first, int64_t rows, void* const* buffers) noexcept nogil
        void* context
        int needs_gil
        int (*fill_part)(void* context, int64_t first, int64_t rows, void* const* buffers, int part,
                         int parts) noexcept nogil

cdef extern from "data/rows.h" namespace "pbp":
    void gather_rows_of_bytes(char* out, Py_ssize_t out_stride, const char* data, Py_ssize_t stride, Py_ssize_t bytes,
                              const int64_t* order, int64_t first, int64_t rows) noexcept nogil
    cdef struct Part:
        int64_t row, rows
        Py_ssize_t at, bytes
    Part part_of(int64_t rows, Py_ssize_t bytes, Py_ssize_t item, int part, int parts) noexcept nogil

cdef extern from "data/prefetch.h" namespace "pbp":
    cdef cppclass Prefetch:
        Prefetch(const pbp_feeder* inner, const vector[int64_t]& row_bytes, int64_t total) except +
        @staticmethod
        int fill(void* self, int64_t first, int64_t rows, void* const* buffers) noexcept nogil
        @staticmethod
        void retire(Prefetch* self) noexcept nogil
        void discard() nogil
        void stop() noexcept nogil

ctypedef fused source_t:
    float
    double
    int8_t
    int16_t
    int32_t
    int64_t
    uint8_t
    uint16_t
    uint32_t
    uint64_t

ctypedef fused target_t:
    float
    double
    int64_t

# Source dtypes by name; float16 has no C type and is decoded by hand, bool is a uint8 of 0 or 1.
cdef enum:
    F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64

SOURCES = {"float16": F16, "float32": F32, "float64": F64, "int8": I8, "int16": I16, "int32": I32, "int64": I64,
           "uint8": U8, "bool": U8, "uint16": U16, "uint32": U32, "uint64": U64}
TARGETS = {"float32": F32, "float64": F64, "int64": I64}

cdef struct Source:
    const char* data
    Py_ssize_t row_stride   # bytes from one row to the next, may be negative
    Py_ssize_t width        # elements in a row
    int code, target
    bint copies             # same dtype and no normalisation: rows are copied as bytes
    Py_ssize_t row_bytes    # of the source
    Py_ssize_t target_size  # bytes of one element written
    const double* mean      # width numbers each, or null
    const double* inv_std


cdef inline float half(uint16_t h) noexcept nogil:
    # Exponents move from bias 15 to 127; subnormals are integers times 2**-24, so that flush-to-zero modes cannot hurt.
    cdef uint32_t exponent = (h >> 10) & 31, mantissa = h & 1023, bits
    cdef float value
    if exponent == 0:
        value = <float>mantissa * <float>5.9604644775390625e-08
        return -value if h & 0x8000 else value
    bits = (<uint32_t>(h & 0x8000) << 16) | ((exponent + 112 if exponent != 31 else 255) << 23) | (mantissa << 13)
    memcpy(&value, &bits, 4)
    return value


cdef inline void gather_rows(const source_t* tag, target_t* out, const Source* s, const int64_t* order, int64_t first,
                             int64_t rows) noexcept nogil:
    cdef int64_t r
    cdef Py_ssize_t j, width = s.width
    cdef const source_t* row
    for r in range(first, first + rows):
        row = <const source_t*>(s.data + (order[r] if order else r) * s.row_stride)
        if s.mean:
            for j in range(width):
                out[j] = <target_t>((<double>row[j] - s.mean[j]) * s.inv_std[j])
        else:
            for j in range(width):
                out[j] = <target_t>row[j]
        out += width


cdef void gather_halves(target_t* out, const Source* s, const int64_t* order, int64_t first, int64_t rows) noexcept nogil:
    cdef int64_t r
    cdef Py_ssize_t j
    cdef const uint16_t* row
    for r in range(first, first + rows):
        row = <const uint16_t*>(s.data + (order[r] if order else r) * s.row_stride)
        for j in range(s.width):
            if s.mean:
                out[j] = <target_t>((<double>half(row[j]) - s.mean[j]) * s.inv_std[j])
            else:
                out[j] = <target_t>half(row[j])
        out += s.width


cdef void gather_any(target_t* out, const Source* s, const int64_t* order, int64_t first, int64_t rows) noexcept nogil:
    if s.code == F32:
        gather_rows(<const float*>NULL, out, s, order, first, rows)
    elif s.code == F64:
        gather_rows(<const double*>NULL, out, s, order, first, rows)
    elif s.code == F16:
        gather_halves(out, s, order, first, rows)
    elif s.code == I8:
        gather_rows(<const int8_t*>NULL, out, s, order, first, rows)
    elif s.code == I16:
        gather_rows(<const int16_t*>NULL, out, s, order, first, rows)
    elif s.code == I32:
        gather_rows(<const int32_t*>NULL, out, s, order, first, rows)
    elif s.code == I64:
        gather_rows(<const int64_t*>NULL, out, s, order, first, rows)
    elif s.code == U8:
        gather_rows(<const uint8_t*>NULL, out, s, order, first, rows)
    elif s.code == U16:
        gather_rows(<const uint16_t*>NULL, out, s, order, first, rows)
    elif s.code == U32:
        gather_rows(<const uint32_t*>NULL, out, s, order, first, rows)
    else:
        gather_rows(<const uint64_t*>NULL, out, s, order, first, rows)


cdef class _Feeder:
    """What ``Stepper.run`` and the trainer ask of a feeder: a capsule, a length, and rows on request."""

    cdef pbp_feeder feeder
    cdef readonly Py_ssize_t rows
    cdef readonly tuple shapes, dtypes
    cdef object __weakref__

    def __len__(self):
        return self.rows

    def capsule(self):
        """A ``pybackprop.feeder`` capsule for ``Stepper.run``; it keeps this feeder alive."""
        capsule = PyCapsule_New(&self.feeder, PBP_FEEDER_CAPSULE, release)
        PyCapsule_SetContext(capsule, <void*>self)
        Py_INCREF(self)
        return capsule

    def take(self, Py_ssize_t first, Py_ssize_t rows):
        """Rows ``[first, first + rows)`` of the order as a list of new arrays, exactly as a run would see them.

        Raises:
            IndexError: the rows are not all there.
        """
        cdef vector[void*] pointers
        cdef Py_buffer view
        cdef int failed
        if first < 0 or rows < 0 or first + rows > self.rows:
            raise IndexError(f"rows {first} to {first + rows} asked of a feeder of {self.rows} rows")
        arrays = [np.empty((rows, *shape), dtype) for shape, dtype in zip(self.shapes, self.dtypes)]
        for array in arrays:
            PyObject_GetBuffer(array, &view, PyBUF_STRIDES)
            pointers.push_back(view.buf)
            PyBuffer_Release(&view)  # the array itself stays alive in `arrays`
        with nogil:
            failed = self.feeder.fill(self.feeder.context, first, rows, pointers.data())
        if failed:
            raise IndexError(f"rows {first} to {first + rows} could not be gathered")
        return arrays


cdef void release(object capsule) noexcept:
    Py_DECREF(<object>PyCapsule_GetContext(capsule))


cdef int fill_arrays(void* context, int64_t first, int64_t rows, void* const* buffers) noexcept nogil:
    return fill_arrays_part(context, first, rows, buffers, 0, 1)


cdef int fill_arrays_part(void* context, int64_t first, int64_t rows, void* const* buffers, int part,
                          int parts) noexcept nogil:
    # The context is the feeder's table, not the Python object: nothing here touches a reference count.
    cdef Table* table = <Table*>context
    cdef const Source* s
    cdef Py_ssize_t i
    cdef Part p
    cdef char* out
    if first < 0 or rows < 0 or first + rows > table.rows:
        return 1
    for i in range(table.count):
        s = &table.sources[i]
        if s.copies:
            p = part_of(rows, s.row_bytes, s.target_size, part, parts)
            gather_rows_of_bytes(<char*>buffers[i] + p.row * s.row_bytes + p.at, s.row_bytes, s.data + p.at,
                                 s.row_stride, p.bytes, table.order, first + p.row, p.rows)
            continue
        p = part_of(rows, 0, 1, part, parts)
        out = <char*>buffers[i] + p.row * s.width * s.target_size
        if s.target == F32:
            gather_any(<float*>out, s, table.order, first + p.row, p.rows)
        elif s.target == F64:
            gather_any(<double*>out, s, table.order, first + p.row, p.rows)
        else:
            gather_any(<int64_t*>out, s, table.order, first + p.row, p.rows)
    return 0


cdef struct Table:
    Source* sources
    Py_ssize_t count
    const int64_t* order  # null: the arrays' own order
    int64_t rows          # that may be asked for: the length of the order


cdef class ArrayFeeder(_Feeder):
    """Gathers rows of arrays in any order, casting and normalising on the way.

    Each array is acquired once, here; a batch costs a loop over its rows. Rows may lie at any distance from each other
    (a slice ``x[::2]``, a column block, a memory map); an array whose single rows are not contiguous, or whose bytes are not
    in native order, is copied once.

    Args:
        arrays: NumPy arrays of one length ``n`` along dimension 0: float16, float32, float64, any integer type, or bool.
        dtypes: for each array what is written: ``"float32"``, ``"float64"`` or ``"int64"``. Default: int64 for integer and
            bool arrays, float32 otherwise.
        normalize: ``{index of array: (mean, std)}``; both broadcast to one row. What is written is
            ``(x - mean) * (1 / std)``, computed in double, and a ``std`` of 0 counts as 1 (a constant column becomes 0).

    Raises:
        TypeError: an array of another type, or floats asked for as ``"int64"``.
        ValueError: lengths differ, no arrays, or ``mean`` and ``std`` that do not fit a row.

    Example:
        >>> feeder = ArrayFeeder([np.arange(6, dtype=np.uint8).reshape(3, 2)], ["float32"])
        >>> feeder.set_order(np.array([2, 0]))
        >>> feeder.take(0, 2)[0].tolist()
        [[4.0, 5.0], [0.0, 1.0]]
    """

    cdef Table table
    cdef Py_buffer* views
    cdef Py_ssize_t acquired, length  # buffers held; rows of the arrays
    cdef list kept            # normalisation numbers
    cdef object order_array

    def __cinit__(self, arrays, dtypes=None, normalize=None):
        arrays = [a if isinstance(a, np.ndarray) else np.asarray(a) for a in arrays]
        if not arrays:
            raise ValueError("ArrayFeeder needs at least one array")
        if dtypes is None:
            dtypes = ["int64" if a.dtype.kind in "iub" else "float32" for a in arrays]
        dtypes = tuple(str(d) for d in dtypes)
        if len(dtypes) != len(arrays):
            raise ValueError(f"ArrayFeeder got {len(arrays)} arrays but {len(dtypes)} dtypes")
        self.kept = []
        self.views = <Py_buffer*>calloc(len(arrays), sizeof(Py_buffer))
        self.table.sources = <Source*>calloc(len(arrays), sizeof(Source))
        if self.views == NULL or self.table.sources == NULL:
            raise MemoryError
        shapes = []
        for i, (array, dtype) in enumerate(zip(arrays, dtypes)):
            self._acquire(i, array, dtype, (normalize or {}).get(i), len(arrays[0]) if arrays[0].ndim else -1)
            shapes.append(array.shape[1:])
        self.shapes = tuple(shapes)
        self.dtypes = dtypes
        self.table.count = len(arrays)
        self.rows = self.table.rows = len(arrays[0])
        self.length = self.rows
        self.feeder.fill = fill_arrays
        self.feeder.context = &self.table
        self.feeder.needs_gil = 0
        self.feeder.fill_part = fill_arrays_part

    cdef _acquire(self, Py_ssize_t i, array, str dtype, scaling, Py_ssize_t rows):
        cdef Source* s = &self.table.sources[i]
        cdef double[::1] numbers
        if dtype not in TARGETS:
            raise TypeError(f"array {i} is asked for as {dtype}; a feeder writes float32, float64 or int64")
        if array.dtype.name not in SOURCES:
            raise TypeError(f"array {i} has dtype {array.dtype}; a feeder reads floats, integers and bool")
        if dtype == "int64" and array.dtype.kind == "f":
            raise TypeError(f"array {i} has dtype {array.dtype} but integers are wanted; convert it with astype('int64')")
        if array.ndim == 0 or len(array) != rows:
            raise ValueError(f"array {i} has shape {array.shape}, but array 0 has {rows} rows")
        if not array.dtype.isnative or (rows and not array[0].flags.c_contiguous):
            array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
        PyObject_GetBuffer(array, &self.views[i], PyBUF_STRIDES)
        self.acquired = i + 1
        s.data = <const char*>self.views[i].buf
        s.row_stride = array.strides[0]
        s.width = int(np.prod(array.shape[1:], dtype=np.int64))
        s.code, s.target = SOURCES[array.dtype.name], TARGETS[dtype]
        s.row_bytes = s.width * array.itemsize
        s.target_size = 4 if s.target == F32 else 8
        s.copies = s.code == s.target and scaling is None
        if scaling is None:
            return
        if dtype == "int64":
            raise TypeError(f"array {i} is integer input and cannot be normalised")
        try:
            mean, std = (np.array(np.broadcast_to(v, array.shape[1:]), np.float64).ravel() for v in scaling)
        except ValueError as error:
            raise ValueError(f"normalisation of array {i} does not fit rows of shape {array.shape[1:]}: {error}") from None
        inv_std = 1.0 / np.where(std == 0, 1.0, std)
        self.kept += [mean, inv_std]
        if s.width:
            numbers = mean
            s.mean = &numbers[0]
            numbers = inv_std
            s.inv_std = &numbers[0]

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.acquired):
            PyBuffer_Release(&self.views[i])
        free(self.views)
        free(self.table.sources)

    def set_order(self, order=None):
        """Rows come as ``array[order[0]], array[order[1]], …`` from now on; None goes back to the arrays' own order.

        Not to be called while a run is under way.

        Args:
            order: integers in ``[0, n)``, any length, repeats allowed. Checked here once, never per batch.

        Raises:
            ValueError: an index is out of range.
        """
        cdef const int64_t[::1] view
        if order is None:
            self.order_array = None
            self.table.order = NULL
            self.rows = self.table.rows = self.length
            return
        order = np.array(order, dtype=np.int64, order="C", copy=True).reshape(-1)  # ours: nobody can change it later
        if len(order) and (order.min() < 0 or order.max() >= self.length):
            raise ValueError(f"order holds row {order.min() if order.min() < 0 else order.max()}, "
                             f"but the arrays have rows 0 to {self.length - 1}")
        view = order
        self.order_array = order
        self.table.order = NULL
        if len(order):
            self.table.order = &view[0]
        self.rows = self.table.rows = len(order)


cdef class PrefetchFeeder(_Feeder):
    """Gathers the next batch on a thread of its own while the present one is computed.

    Worth it where gathering is slow beside one extra copy of the batch: memory maps that touch the disk, wide rows that are
    cast. For a batch of a few kilobytes the hand-over between threads costs more than the gather itself, so
    :class:`~pybackprop.Trainer` wraps its feeder only above ``pybackprop.data.PREFETCH_BYTES`` a batch.

    The thread starts with the first batch, ends with :meth:`close` (or the object), and never holds the GIL. In a forked
    child, where that thread does not exist, rows are gathered in the calling thread.

    Args:
        inner: an :class:`ArrayFeeder`.
    """

    cdef Prefetch* ring
    cdef ArrayFeeder inner

    def __cinit__(self, ArrayFeeder inner not None):
        self.inner = inner
        self.shapes, self.dtypes, self.rows = inner.shapes, inner.dtypes, inner.rows
        self._start()
        self.feeder.fill = Prefetch.fill
        self.feeder.needs_gil = 0
        self.feeder.fill_part = NULL

    cdef _start(self):
        cdef vector[int64_t] row_bytes
        cdef Py_ssize_t i
        for i in range(self.inner.table.count):
            row_bytes.push_back(self.inner.table.sources[i].width * self.inner.table.sources[i].target_size)
        self.ring = new Prefetch(&self.inner.feeder, row_bytes, self.inner.rows)
        self.feeder.context = self.ring

    def __dealloc__(self):
        if self.ring != NULL:
            with nogil:
                Prefetch.retire(self.ring)

    def set_order(self, order=None):
        """As :meth:`ArrayFeeder.set_order`; what was gathered ahead in the old order is thrown away."""
        cdef Py_ssize_t before = self.inner.rows
        with nogil:
            self.ring.discard()
        self.inner.set_order(order)
        if self.inner.rows != before:
            with nogil:
                Prefetch.retire(self.ring)
            self.ring = NULL
            self._start()
            self.rows = self.inner.rows

    def close(self):
        """End the thread; what was gathered ahead is thrown away. The feeder stays usable."""
        with nogil:
            self.ring.stop()
