"""Start TensorFlow quietly and without what the commands do not use.

Called by a command before its first Keras import; changes the process, so libraries never call it.
"""

import contextlib
import gc
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator

from prl_keras.errors import InputError
from prl_keras.processors import cores
from prl_keras.strategies import cluster, logical_devices, strategy_of

_NOISE = (
    b"oneDNN custom operations",
    b"before absl::InitializeLog",
    b"cpu_feature_guard",
    b"To enable the following",
    b"Could not find cuda drivers",  # of a TensorFlow that could use them, on a machine that has none
    b"cuInit: UNKNOWN ERROR (303)",
)
_MOST_DEVICES = 64
# Keras imports these eagerly when they are installed, for features that are not used here: 1-4 s.
_NOT_FOR_KERAS = ("matplotlib", "pandas", "sklearn")

# scikit-learn's OpenMP threads spin while they wait for each other; beside another job that took most of a minute for
# a t-SNE of 194 points (docs/results/threads.json). Read once when scikit-learn is loaded, so set before any data are;
# TensorFlow has threads of its own and never reads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def start_keras(
    seed: int | None = None,
    precision: str = "float32",
    deterministic: bool = False,
    strategy: str = "none",
    ready: Callable[[], object] = lambda: None,
) -> None:
    """Import Keras, silence TensorFlow's start-up lines, set the seed and the precision policy.

    `deterministic` forbids TensorFlow operations that may answer differently twice, for the rest of the process.
    `strategy` of several machines has to be made before TensorFlow's first operation, so it is made here. `ready` is
    called just before, after the slow imports: TensorFlow stops the whole process there until the other workers come,
    so that it could not even say that it is alive.

    Raises:
        InputError: there are not the devices that the strategy shares a training between; a bad value of
            PRL_KERAS_LOGICAL_DEVICES.
    """
    # of several machines its errors are known here too, and named (company.py)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if strategy == "multiworker" else "2")
    count = _logical_devices_asked_for()
    if "keras" not in sys.modules:
        with _quiet_native_startup(), _hidden(_NOT_FOR_KERAS):
            import keras

            if count:
                logical_devices(count)
            ready()
            strategy_of(strategy)
            keras.ops.ones(1).numpy()
        collect_garbage_rarely()
    else:
        ready()
    import keras

    strategy_of(strategy)
    logging.getLogger("tensorflow").addFilter(_of_use)
    if deterministic:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    keras.mixed_precision.set_global_policy(precision)
    if seed is not None:
        keras.utils.set_random_seed(seed)


def _logical_devices_asked_for() -> int | None:
    text = os.environ.get("PRL_KERAS_LOGICAL_DEVICES", "")
    if text and not (text.isascii() and text.isdigit() and 0 < int(text) <= _MOST_DEVICES):
        raise InputError(f"PRL_KERAS_LOGICAL_DEVICES is {text!a}; expected a number from 1 to {_MOST_DEVICES}")
    return int(text) if text else None


def gpus() -> int:
    """After `start_keras`."""
    import tensorflow as tf

    return len(tf.config.list_logical_devices("GPU"))


def _of_use(record: logging.LogRecord) -> bool:
    """Several commands in one process, as in a notebook, have several models: not what the first warning warns of. What
    is sent outside a function is sent once."""
    useless = ("triggered tf.function retracing", "eagerly has significant overhead")
    return not any(words in str(record.msg) for words in useless)


def collect_garbage_rarely() -> None:
    """Imports and the tracing of a model make a million objects that stay; to look for dead ones among them again and
    again takes a quarter of the time to the first step."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def device(precision: str, strategy: str = "none") -> str:
    """What computes, and in which precision, in words; after `start_keras`."""
    import tensorflow as tf

    workers = cluster() if strategy == "multiworker" else None
    machines = f", as worker {workers.index + 1} of {len(workers.workers)}" if workers else ""
    if gpus := tf.config.list_physical_devices("GPU"):
        names = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]
        used = "1 of" if strategy == "none" else "all"
        where = names[0] if len(gpus) == 1 else f"{names[0]} ({used} {len(gpus)} GPUs)"
        return f"Computing on {where}{machines}, {precision}"
    slow = precision == "mixed_bfloat16" and "avx512f" not in (_processor_flags() or "avx512f")
    note = ", which is slow on a processor without AVX-512 (docs/results.md)" if slow else ""
    count = cores()
    return f"Computing on {count} CPU core{'' if count == 1 else 's'}{machines}, {precision}{note}"


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for it: x86's AVX512_BF16 or AMX, Arm's BF16. Others take many times as
    long as for float32 (docs/results.md). False where that is not known."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(_processor_flags().split()))


def _processor_flags() -> str:
    """Of Linux on x86 and Arm; empty where they are not known."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        return next((line for line in file if line.startswith(("flags", "Features"))), "")
    return ""


def forget_models() -> None:
    """Free what earlier models of this process left behind; none of them can be trained afterwards.

    TensorFlow registers the gradients of `tf.custom_gradient` for the life of the process, and each holds the
    training function it was traced in with all its weights: 160 MB a ResNet-18. The registry has no public way out.
    """
    import keras

    keras.backend.clear_session()
    with contextlib.suppress(ImportError, AttributeError, TypeError):  # another TensorFlow: it keeps them
        from tensorflow.python.framework import ops

        registry = ops.gradient_registry._registry
        for name in [name for name in registry if name.startswith("CustomGradient-")]:
            del registry[name]
    gc.collect()


def _quiet_native_startup() -> contextlib.AbstractContextManager[None]:
    return native_stderr(lambda line: not any(noise in line for noise in _NOISE))


@contextlib.contextmanager
def native_stderr(shown: Callable[[bytes], bool]) -> Iterator[None]:
    """Hold what native code writes to file descriptor 2, then replay the lines that are to be shown.

    `sys.__stderr__` is the real one meanwhile: a thread that ends the process says why there.
    """
    try:
        saved = os.dup(2)
    except OSError:  # there is none
        yield
        return
    _flush_stderr()
    with tempfile.TemporaryFile() as held, os.fdopen(saved, "w", errors="backslashreplace") as real:
        os.dup2(held.fileno(), 2)
        usual, sys.__stderr__ = sys.__stderr__, real
        try:
            yield
        finally:
            sys.__stderr__ = usual
            _flush_stderr()
            os.dup2(saved, 2)
            held.seek(0)
            for line in held:
                if shown(line):
                    os.write(2, line)


def _flush_stderr() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()


@contextlib.contextmanager
def _hidden(names: tuple[str, ...]) -> Iterator[None]:
    """Make `import name` fail for a while, unless it is imported already."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
