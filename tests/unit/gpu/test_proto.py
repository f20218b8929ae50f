"""The committed message classes are what the compiler makes of the .proto files."""

from pathlib import Path

from drakkar_gpu.plugin.proto import generate

FOLDER = Path(generate.__file__).parent


def test_stubs_are_current(tmp_path: Path) -> None:
    generate.generate(tmp_path)
    made = {path.name: path.read_text() for path in (tmp_path / generate.PACKAGE).iterdir()}
    assert made.keys() == {f"{name}_pb2{end}" for name in generate.NAMES for end in (".py", ".pyi")}
    for name, text in made.items():
        assert (FOLDER / name).read_text() == text, (
            "run python -m drakkar_gpu.plugin.proto.generate"
        )
