"""The formats: how each is written, what is known of a file, and what its own runtime answers.

Every file holds `about`, what `predict` says of its outputs too: SavedModel in assets.extra/about.json, a folder that
TensorFlow leaves to users; ONNX in its metadata_props; LiteRT in a ZIP archive behind the model, where its own tools
keep labels.
"""

import json
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.extras import installed
from prl_keras.files import atomic_folder, atomic_path
from prl_keras.outputs.tables import as_texts

_ABOUT = "about.json"


@dataclass(frozen=True)
class Format:
    """name: of the file in RUN/export. writers: packages that write it. runtimes: that run it, the best first.

    write(program, file, about); answer(file, images, output) -> float32; about(file), of a file that has none an
    exception.
    """

    name: str
    writers: tuple[str, ...]
    runtimes: tuple[str, ...]
    write: Callable[[Any, Path, dict[str, Any]], None]
    answer: Callable[[Path, np.ndarray, str], np.ndarray]
    about: Callable[[Path], dict[str, Any]]

    @property
    def suffix(self) -> str:
        """Empty: it is a folder."""
        return Path(self.name).suffix

    @property
    def runtime(self) -> str | None:
        """The package that `answer` uses; None: there is none."""
        return next(filter(installed, self.runtimes), None)

    def atomic(self, target: Path) -> Any:
        """A context with a draft of the target, which takes its place if all goes well."""
        return atomic_path(target) if self.suffix else atomic_folder(target)

    def about_of(self, file: Path) -> dict[str, Any]:
        """Empty for what no `export` wrote."""
        with suppress(Exception):  # whatever lies there: not ours
            about = self.about(file)
            return about if isinstance(about, dict) and about.get("command") == "export" else {}
        return {}


def _write_savedmodel(program: Any, folder: Path, about: dict[str, Any]) -> None:
    import tensorflow as tf

    module = tf.Module()  # Keras's own export writes every weight twice
    module.weights = [weight.value for weight in program.weights]
    images = tf.TensorSpec((None, *program.input_shape[1:]), tf.uint8, name=program.inputs[0].name)
    module.serve = tf.function(lambda images: program(images, training=False), input_signature=[images])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / _ABOUT).write_text(_as_json(about), encoding="utf-8")


def _answer_savedmodel(folder: Path, images: np.ndarray, output: str) -> np.ndarray:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))  # a name: its function alone would not keep its weights
    return loaded.serve(images)[output].numpy()


def _about_savedmodel(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "assets.extra" / _ABOUT).read_text(encoding="utf-8"))


def _write_onnx(program: Any, file: Path, about: dict[str, Any]) -> None:
    import onnx

    program.export(file, format="onnx", verbose=False)
    model = onnx.load(file)
    onnx.helper.set_model_props(model, as_texts(about))
    onnx.save(model, file)


def _answer_onnx(file: Path, images: np.ndarray, output: str) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    return session.run([output], {session.get_inputs()[0].name: images})[0]


def _about_onnx(file: Path) -> dict[str, Any]:
    import onnx

    return {entry.key: entry.value for entry in onnx.load(file).metadata_props}


def _write_litert(program: Any, file: Path, about: dict[str, Any]) -> None:
    import tensorflow as tf

    plain = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}  # else a phone would need TensorFlow's own kernels
    program.export(file, format="litert", verbose=False, target_spec=plain)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(_ABOUT, _as_json(about))
        if names := about.get("class_names"):
            archive.writestr("labels.txt", "".join(f"{' '.join(name.split())}\n" for name in names))


def _answer_litert(file: Path, images: np.ndarray, output: str) -> np.ndarray:
    if installed("ai-edge-litert"):
        from ai_edge_litert.interpreter import Interpreter
    else:
        from tensorflow.lite import Interpreter
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's own is to go one day
        interpreter = Interpreter(model_content=file.read_bytes())
    return interpreter.get_signature_runner()(images=images)[output]


def _about_litert(file: Path) -> dict[str, Any]:
    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read(_ABOUT))


def _as_json(about: dict[str, Any]) -> str:
    return json.dumps(about, indent=2, ensure_ascii=False) + "\n"


FORMATS = {
    "savedmodel": Format(
        name="savedmodel",
        writers=(),
        runtimes=("tensorflow",),
        write=_write_savedmodel,
        answer=_answer_savedmodel,
        about=_about_savedmodel,
    ),
    "onnx": Format(
        name="model.onnx",
        writers=("tf2onnx", "onnx"),
        runtimes=("onnxruntime",),
        write=_write_onnx,
        answer=_answer_onnx,
        about=_about_onnx,
    ),
    "litert": Format(
        name="model.tflite",
        writers=(),
        runtimes=("ai-edge-litert", "tensorflow"),
        write=_write_litert,
        answer=_answer_litert,
        about=_about_litert,
    ),
}
