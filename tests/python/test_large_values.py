"""Large memory inside values: put without a copy, and read into memory that then backs the values."""

from __future__ import annotations

import asyncio
import gc
import io
import subprocess
import sys
import threading
from typing import Any

import msgpack  # type: ignore[import-untyped,unused-ignore]
import numpy as np
import pytest

from support.large_values import (
    ALIGN,
    LARGE_VALUES,
    columns_of,
    decoded,
    memory,
    picture,
    same,
)
from transferq._impl.encoding import Decoder, Encoder
from transferq._impl.work import Work, is_heavy
from transferq.errors import SerializationError

torch = pytest.importorskip("torch")
tensordict = pytest.importorskip("tensordict")
Image = pytest.importorskip("PIL.Image")


@pytest.mark.parametrize("name", LARGE_VALUES)
@pytest.mark.parametrize("depth", [0, 1, 2, 7, 80, 300])
def test_every_kind_at_every_depth(name: str, depth: int) -> None:
    value = LARGE_VALUES[name]()
    for level in range(depth):
        value = {"in": value, "small": torch.zeros(1, 3)} if level % 2 else [level, value, "end"]
    rows = [value, value]
    slices, held, sizes, keep = columns_of(rows)
    assert sum(sizes) == len(held)
    assert len(slices) > 2, "large memory is cut out"
    assert keep
    whole, again = Encoder().encode_column("f", rows)
    assert bytes(whole) == held, "the same bytes, copied"
    assert list(again) == sizes
    assert all(same(value, got) for got in decoded(memory(held), sizes))
    # Even if nothing is aligned, or the memory of the read is read-only.
    assert all(same(value, got) for got in decoded(memory(b"x" + held)[1:], sizes))
    assert all(same(value, got) for got in decoded(held, sizes))


@pytest.mark.parametrize("kind", [torch.arange, np.arange])
def test_what_is_put_is_the_callers_own_memory(kind: Any) -> None:
    values = kind(50_000)
    address = values.data_ptr() if kind is torch.arange else values.ctypes.data
    slices, _, _, _ = columns_of([{"a": [values]}])
    assert (address, 400_000) in slices


def test_what_is_read_lies_in_what_was_read() -> None:
    """Aligned, writable, and not overlapping; small ones are copied out, because they would keep the rest alive."""
    rows = [
        {"a": torch.arange(5000 + row), "small": torch.arange(1000), "b": np.arange(7001)}
        for row in range(5)
    ]
    _, held, sizes, _ = columns_of(rows)
    assert all(size % ALIGN == 0 for size in sizes)
    lies = memory(held)
    start = np.frombuffer(lies, np.uint8).ctypes.data
    inside = range(start, start + len(held))
    got = decoded(lies, sizes)
    for row, value in zip(rows, got, strict=True):
        assert same(row, value)
        assert value["a"].data_ptr() in inside
        assert value["b"].ctypes.data in inside
        assert value["a"].data_ptr() % ALIGN == value["b"].ctypes.data % ALIGN == 0
        assert value["small"].data_ptr() not in inside
        assert value["b"].flags.writeable
        assert value["a"].untyped_storage().nbytes() == value["a"].nbytes
    got[0]["a"].zero_()
    got[0]["b"][:] = 0
    assert same(rows[1:], got[1:])
    assert same(rows[0]["small"], got[0]["small"])


def test_text_and_bytes_behind_a_tensor() -> None:
    """Made slices too, after the zeros that pad the row."""
    row = [torch.arange(5000), "t" * 5000, b"b" * 5001, {"end": 1}]
    _, held, sizes, _ = columns_of([row, row])
    assert sizes[0] % ALIGN == 0
    assert same([row, row], decoded(memory(held), sizes))


def test_values_of_version_0_2_0_are_read() -> None:
    """As msgpack encoded them: the bytes of a tensor or array inside its extension type, whatever their size."""
    import msgpack

    def extension(code: int, value: Any) -> msgpack.ExtType:
        return msgpack.ExtType(code, msgpack.packb(value))

    values = torch.arange(9000)
    old = {
        "tensor": extension(1, [0, 64, [3, 3000], values.numpy().tobytes()]),
        "array": extension(2, ["<i8", [9000], values.numpy().tobytes()]),
        "nested": extension(
            10, ["jagged", [extension(1, [0, 64, [9000], values.numpy().tobytes()])]]
        ),
    }
    packed = bytearray(msgpack.packb(old))
    (got,) = decoded(packed, [len(packed)])
    assert torch.equal(got["tensor"], values.view(3, 3000))
    assert np.array_equal(got["array"], values.numpy())
    assert torch.equal(got["nested"].unbind()[0], values)
    got["tensor"].zero_()
    assert torch.equal(Decoder().decode(packed)["tensor"], values.view(3, 3000))


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode",
    [
        "L",
        "P",
        "RGB",
        "RGBX",
        "RGBA",
        "CMYK",
        "F",
        "I",
        "LA",
        "1",
        "I;16",
        "YCbCr",
        "HSV",
        "LAB",
        "PA",
    ],
)
@pytest.mark.parametrize("size", [(70, 90), (1, 1), (3, 5)])
def test_images_come_back_as_they_were(mode: str, size: tuple[int, int]) -> None:
    image = picture(mode if mode != "I;16" else "L", size)
    image = image.convert("I;16") if mode == "I;16" else image
    image.info = {"dpi": (72, 72), "comment": b"x", "list": [1, (2, "y")], "n": None}
    _, held, sizes, _ = columns_of([[image]], allow_pickle=False)
    got = decoded(memory(held), sizes, allow_pickle=False)[0][0]
    assert type(got) is Image.Image
    assert (got.mode, got.size, got.info) == (image.mode, image.size, image.info)
    assert got.tobytes() == image.tobytes()
    assert got.getpalette() == image.getpalette()
    if mode == "P":
        assert got.convert("RGB").tobytes() == image.convert("RGB").tobytes()
    pixels = got.load()
    pixels[0, 0] = before = got.getpixel((0, 0))
    got.putpixel((0, 0), before)
    assert got.tobytes() == image.tobytes()


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBX", "RGBA", "CMYK", "F", "I"])
def test_images_lie_in_the_memory_of_the_read(mode: str) -> None:
    """Nothing is copied; drawing modifies only the image, and the memory of the read lives as long as the image."""
    from PIL import ImageDraw

    from transferq._impl import images

    image = picture(mode, (200, 100))
    _, held, sizes, _ = columns_of([[image, image]], allow_pickle=False)
    lies = memory(held)
    one, other = decoded(lies, sizes, allow_pickle=False)[0]
    begin = np.frombuffer(lies, np.uint8).ctypes.data
    for each in (one, other):
        found = images._pixels(each)
        assert found is not None
        assert begin < found[0] <= begin + len(held) - found[1]
    del lies
    gc.collect()
    before, colour = one.getpixel((7, 7)), 3 if mode in "LPFI" else (1, 2, 3, 4)[: len(mode)]
    ImageDraw.Draw(one).point((7, 7), fill=colour)
    one.paste(one.crop((0, 0, 50, 50)), (100, 50))
    one.load()[0, 0] = colour
    assert one.getpixel((7, 7)) == one.getpixel((0, 0)) != before
    assert other.tobytes() == image.tobytes()
    # It can be put from there again, like any other image.
    _, held, sizes, _ = columns_of([[one]], allow_pickle=False)
    assert decoded(memory(held), sizes, allow_pickle=False)[0][0].tobytes() == one.tobytes()
    assert not one.readonly


def test_a_pillow_that_cannot_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    from transferq._impl import images

    assert images._maps()
    monkeypatch.setattr(images, "_maps", lambda: False)
    image = picture("RGB", (200, 100))
    _, held, sizes, _ = columns_of([image], allow_pickle=False)
    (got,) = decoded(memory(held), sizes, allow_pickle=False)
    assert got.tobytes() == image.tobytes()


def test_images_of_files_keep_their_class(tmp_path: Any) -> None:
    for name, form in (("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.gif", "GIF"), ("a.bmp", "BMP")):
        path = tmp_path / name
        picture().save(path)
        image = Image.open(path)
        _, held, sizes, _ = columns_of([image], allow_pickle=False)
        (got,) = decoded(memory(held), sizes, allow_pickle=False)
        assert type(got) is type(image)
        assert (got.format, got.filename, got.info) == (form, image.filename, image.info)
        assert got.tobytes() == image.tobytes()
    buffer = io.BytesIO()
    picture("RGBA").quantize(16).save(buffer, "PNG", transparency=3)
    (got,) = decoded(*columns_of([Image.open(buffer)])[1:3])
    assert got.convert("RGBA").tobytes() == Image.open(buffer).convert("RGBA").tobytes()


def test_a_row_does_not_say_what_is_imported(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a module next to Pillow's that contains a class of images."""
    import PIL

    (tmp_path / "RogueImage.py").write_text(
        "from PIL import Image\n"
        f"open({str(tmp_path / 'imported')!r}, 'w').close()\n"
        "class Rogue(Image.Image): pass\n"
    )
    monkeypatch.setattr(PIL, "__path__", [*PIL.__path__, str(tmp_path)])
    parts = ["PIL.RogueImage:Rogue", "L", [4, 4], "", None, [], [], b"x" * 16]
    with pytest.raises(SerializationError, match=r"'PIL\.RogueImage:Rogue'.*import its module"):
        Decoder().decode(extension(13, parts))
    assert not (tmp_path / "imported").exists()
    assert "PIL.RogueImage" not in sys.modules


def test_images_of_a_format_are_read_where_nobody_has_used_it(tmp_path: Any) -> None:
    """Pillow's own formats are loaded in the way Pillow does it."""
    Image.new("RGB", (4, 4), "red").save(tmp_path / "x.ppm")
    Image.new("RGB", (4, 4), "red").save(tmp_path / "x.tga")
    for file in ("x.ppm", "x.tga"):
        encoded = Encoder().encode(Image.open(tmp_path / file))
        code = (
            "import sys; from transferq._impl.encoding import Decoder; "
            "image = Decoder().decode(bytes.fromhex(sys.argv[1])); print(type(image).__name__, image.getpixel((1, 1)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, encoded.hex()], capture_output=True, text=True, check=False
        )
        assert done.stdout.split(" ", 1)[1] == "(255, 0, 0)\n", done.stderr
        assert done.stdout.split()[0] == type(Image.open(tmp_path / file)).__name__


def test_images_with_what_only_pickle_stores() -> None:
    image = picture()
    image.info["thing"] = {1, 2}
    (got,) = decoded(*columns_of([image])[1:3])
    assert got.info == {"thing": {1, 2}}
    with pytest.raises(SerializationError, match=r"field 'f': .*set .*allow_pickle"):
        columns_of([image], allow_pickle=False)


def test_an_image_of_an_unknown_class_is_refused() -> None:
    _, held, sizes, _ = columns_of([picture(size=(2, 2))])
    for kind in (b"os_.path.x:Aaaaa", b"PIL.Image:Aaaaa", b"PIL.Image:core?"):
        bad = held.replace(b"PIL.Image:Image", kind.ljust(15)[:15])
        with pytest.raises(SerializationError, match=r"field 'f'.*image of class"):
            decoded(bad, sizes)


# --- malformed ------------------------------------------------------------------------------------


def test_malformed_payloads_are_refused_with_the_name_of_the_field() -> None:
    """Whichever byte of the description is changed, and wherever it is truncated."""
    _, held, sizes, _ = columns_of([{"a": torch.arange(600), "b": np.arange(700), "i": picture()}])
    good = decoded(memory(held), sizes)[0]
    refused = 0
    for place in [*range(90), *range(4860, 4980), *range(10_500, 10_700)]:
        for change in (0x00, 0x01, 0x7F, 0x94, 0xC1, 0xFF):
            bad = memory(held)
            bad[place] = change
            try:
                decoded(bad, sizes, allow_pickle=False)
            except SerializationError as error:
                assert "field 'f'" in str(error)
                refused += 1
    assert refused > 300
    for end in range(0, len(held) - ALIGN, 97):
        with pytest.raises(SerializationError, match="field 'f'"):
            decoded(memory(held[:end]), [end])
    assert same(good["a"], torch.arange(600))


def extension(code: int, payload: object) -> bytes:
    """A row as another program might write it."""
    return bytes(msgpack.packb(msgpack.ExtType(code, msgpack.packb(payload))))


@pytest.mark.parametrize(
    "row",
    [
        extension(1, [0, 8, [4], 1 << 40]),
        extension(2, ["|u1", [4], 1 << 40]),
        extension(14, [1 << 40]),
        extension(13, ["PIL.Image:Image", "L", [4, 4], "L", None, [], [], 1 << 40]),
        extension(2, ["|u1", [4], [1, 2, 3, 4]]),
    ],
)
def test_a_number_in_the_place_of_memory_allocates_none(row: bytes) -> None:
    """bytearray(n) makes n zeros: a row of 20 bytes must not take a terabyte."""
    with pytest.raises(SerializationError, match=r"field 'f', row 0: .*(int|list), not bytes"):
        decoded(memory(row), [len(row)])


@pytest.mark.parametrize("raw", ["L", ""])
def test_the_size_of_an_image_alone_allocates_nothing(raw: str) -> None:
    row = extension(
        13, ["PIL.Image:Image", "L", [1 << 15, 1 << 15], raw, None, [], [[0, None]], b"1234"]
    )
    with pytest.raises(SerializationError, match=r"4 bytes of pixels for a size of 32768 x 32768"):
        decoded(memory(row), [len(row)])


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (extension(2, ["(2,", [1], b"1234"]), "extension type 2 is malformed"),
        (extension(3, ["(2,", b"1234"]), "extension type 3 is malformed"),
        (bytes(msgpack.packb(msgpack.ExtType(4, b"\x80\x05"))), "EOFError"),
        (bytes(msgpack.packb(msgpack.ExtType(4, b"cnowhere\nThing\n."))), "No module named 'nowhere'"),
        (bytes(msgpack.packb(msgpack.ExtType(5, b"garbage"))), "UnpicklingError"),
        (extension(12, [7, []]), "TypeError"),
        (extension(12, [b"\x80\x05\x97.", []]), "not enough out-of-band buffers"),
    ],
)  # fmt: skip
def test_whatever_a_foreign_row_raises_names_field_and_row(row: bytes, says: str) -> None:
    good = bytes(Encoder().encode(1))
    with pytest.raises(SerializationError) as raised:
        decoded(memory(good + row), [len(good), len(row)])
    assert "field 'f', row 1: " in str(raised.value)
    assert says in str(raised.value)
    assert raised.value.__cause__ is not None


def test_extensions_that_are_nested_without_end_are_refused_when_read() -> None:
    row = b"\x01"
    for _ in range(5000):
        row = bytes(msgpack.packb(msgpack.ExtType(14, b"\x91" + row)))
    with pytest.raises(SerializationError, match=r"field 'f', row 0: .*too deep"):
        decoded(memory(row), [len(row)])


def test_parts_of_4_gib_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    huge = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (1 << 32,), (0,))
    view = memoryview(np.broadcast_to(np.zeros(1, np.uint8), (1,)))
    assert view.nbytes == 1
    encoder = Encoder()
    monkeypatch.setattr(
        encoder,
        "_convert",
        lambda value: (2, ["|u1", [1 << 32]], (value.ctypes.data, 1 << 32), value),
    )
    with pytest.raises(SerializationError, match=r"field 'big': .*4 GiB"):
        encoder.encode_slices("big", [huge], [])


def test_too_deep_and_cyclic_values_are_refused() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    for call in (Encoder().encode_column, lambda f, rows: Encoder().encode_slices(f, rows, [])):
        with pytest.raises(SerializationError, match=r"field 'f': .*too deep"):
            call("f", [cycle])


def test_values_that_change_while_they_are_encoded_are_an_error() -> None:
    """By the values' own code, or by another thread while the GIL is released."""
    value: dict[str, Any] = {"a": None, "b": 1}

    class Changes:
        def __reduce__(self) -> Any:
            value["c"] = 3
            return int, ()

    value["a"] = Changes()
    with pytest.raises(RuntimeError, match="changed"):
        Encoder().encode_column("f", [value])


def test_only_heavy_work_leaves_the_loop() -> None:
    small = {"x": torch.zeros(4, 1000), "v": ["a", {"b": torch.zeros(3)}, 1, None]}
    assert not is_heavy(small)
    assert not is_heavy(tensordict.TensorDict({"x": torch.zeros(4, 1000)}, batch_size=[4]))
    assert not is_heavy({"x": torch.zeros(1000, 1000)})
    assert is_heavy({"x": torch.zeros(1000, 1000).t()})
    assert is_heavy({"x": ["a"] * 1000})
    assert is_heavy({"x": [["a"] * 5000]})
    assert is_heavy({"x": ["a" * 5_000_000]})
    here = threading.get_ident()

    async def main() -> tuple[int, bool]:
        def where() -> tuple[int, bool]:
            return threading.get_ident(), gc.isenabled()

        return await Work(True, where).beside_the_loop()

    there, collects = asyncio.run(main())
    assert there != here
    assert not collects
    assert gc.isenabled()
