"""What is put, read and cleared: columns of samples like those of post-training.

The same seed gives the same bytes in every process and package, so that the data read by one side can be compared
with the data put by the other.  Sizes are those of one step; `scale` makes fewer samples of the same kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import NonTensorStack, TensorDict

Columns = dict[str, Any]
"""By field: a tensor with one row per sample, a list of tensors (ragged), or a list of other values."""

UNITS = 2
"""Storage units of a system, the same on both sides."""
LETTERS = "abcdefghijklmnopqrstuvwxyz .,;"


@dataclass(frozen=True)
class Workload:
    """One kind of batch."""

    name: str
    samples: int
    about: str
    make: Callable[[int, torch.Generator], Columns]

    def rows(self, scale: float = 1.0) -> int:
        """The number of samples at this scale: at least one group of 8, unless the workload has fewer."""
        return max(min(8, self.samples), round(self.samples * scale) // 8 * 8)

    def columns(self, scale: float = 1.0, seed: int = 0) -> Columns:
        """The columns of a batch at this scale."""
        return self.make(self.rows(scale), torch.Generator().manual_seed(seed))


def table(columns: Columns) -> TensorDict:
    """Columns as a TensorDict; ragged ones as jagged nested tensors."""
    samples = len(next(iter(columns.values())))
    made = TensorDict({}, batch_size=[samples])
    for name, column in columns.items():
        if isinstance(column, torch.Tensor):
            made[name] = column
        elif isinstance(column[0], torch.Tensor):
            made[name] = torch.nested.as_nested_tensor(column, layout=torch.jagged)
        else:
            made[name] = NonTensorStack(*column)
    return made


def size(columns: Columns) -> int:
    """Bytes of the values themselves."""
    return sum(_size(row) for column in columns.values() for row in column)


def _size(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return int(value.numel() * value.element_size())
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_size(each) for each in value.values())
    if isinstance(value, list):
        return sum(map(_size, value))
    if hasattr(value, "getbands"):  # an image
        return int(value.width * value.height * len(value.getbands()))
    return 8


# --- the two cases of PyPI's transferqueue --------------------------------------------------------

WIDTH = 8192
FIELDS = 9


def _simple(samples: int, random: torch.Generator) -> Columns:
    return {
        f"field_{place}": torch.rand(samples, WIDTH, generator=random) for place in range(FIELDS)
    }


def _complex(samples: int, random: torch.Generator) -> Columns:
    columns: Columns = {}
    for place in range(FIELDS // 3):
        columns[f"regular_{place}"] = torch.rand(samples, WIDTH, generator=random)
        columns[f"ragged_{place}"] = [
            torch.rand(int(length), generator=random)
            for length in torch.randint(1, WIDTH, (samples,), generator=random)
        ]
        columns[f"text_{place}"] = _texts(samples, WIDTH, random)
    return columns


def _texts(samples: int, longest: int, random: torch.Generator) -> list[str]:
    lengths = torch.randint(1, longest, (samples,), generator=random).tolist()
    letters = torch.randint(len(LETTERS), (longest,), generator=random).tolist()
    page = "".join(LETTERS[letter] for letter in letters)
    return [page[:length] for length in lengths]


# --- batches like those of trainers ---------------------------------------------------------------

PROMPT = 1024
LONGEST = 16384
GROUP = 8


def _longtail(samples: int, random: torch.Generator) -> Columns:
    lengths = torch.empty(samples).log_normal_(mean=7.3, std=1.0, generator=random)
    lengths = lengths.clamp(16, LONGEST).long().tolist()

    def ragged(make: Callable[[int], torch.Tensor]) -> list[torch.Tensor]:
        return [make(length) for length in lengths]

    def noise(length: int) -> torch.Tensor:
        return torch.randn(length, generator=random)

    return {
        "prompts": torch.randint(0, 151_936, (samples, PROMPT), generator=random),
        "responses": ragged(lambda length: torch.randint(0, 151_936, (length,), generator=random)),
        "response_mask": ragged(lambda length: torch.ones(length, dtype=torch.bool)),
        "old_log_probs": ragged(noise),
        "ref_log_prob": ragged(noise),
        "advantages": ragged(noise),
        "reward": torch.rand(samples, generator=random),
        "group": torch.arange(samples) // GROUP,
    }


def _multimodal(samples: int, random: torch.Generator) -> Columns:
    patches = torch.randint(64, 1024, (samples,), generator=random).tolist()
    return {
        "input_ids": [
            torch.randint(0, 151_936, (count + 128,), generator=random) for count in patches
        ],
        "pixel_values": [
            torch.rand(count, 1176, generator=random).to(torch.bfloat16) for count in patches
        ],
        "multi_modal": [
            {
                "image_grid_thw": torch.tensor([[1, 8, count // 8]]),
                "position_ids": torch.arange(count),
                "source": f"image-{count}.png",
            }
            for count in patches
        ],
        "question": _texts(samples, 512, random),
    }


def _tiny(samples: int, random: torch.Generator) -> Columns:
    return {
        "ids": torch.randint(0, 151_936, (samples, 16), generator=random),
        "log_probs": torch.rand(samples, 16, generator=random),
        "reward": torch.rand(samples, generator=random),
    }


def _maps(samples: int, random: torch.Generator) -> Columns:
    return {
        "multi_modal": [
            {"pixel_values": torch.randn(200, 1176, generator=random), "grid": torch.zeros(1, 3)}
            for _ in range(samples)
        ]
    }


IMAGES = 8
"""Images per sample."""


def _images(samples: int, random: torch.Generator) -> Columns:
    from PIL import Image

    pixels = torch.randint(0, 256, (512, 512, 3), dtype=torch.uint8, generator=random).numpy()
    return {
        "images": [
            [
                Image.fromarray(pixels + pixels.dtype.type((row + place) % 256))
                for place in range(IMAGES)
            ]
            for row in range(samples)
        ]
    }


def _strings(samples: int, random: torch.Generator) -> Columns:
    return {"text": _texts(samples, 200, random)}


def _long_texts(samples: int, random: torch.Generator) -> Columns:
    page = _texts(1, 2, random)[0] * (32 << 10)
    return {"text": [f"{row:06d}{page[6:]}" for row in range(samples)]}


WORKLOADS = {
    each.name: each
    for each in (
        Workload("simple", 1024, f"{FIELDS} fields of {WIDTH} float32", _simple),
        Workload("complex", 1024, "a third each of regular, ragged and strings", _complex),
        Workload(
            "grpo-longtail", 512, f"responses log-normal up to {LONGEST}, groups of 8", _longtail
        ),
        Workload("multimodal", 128, "bfloat16 pixel blocks, maps with tensors", _multimodal),
        Workload("maps", 200, "maps with a tensor of 200 x 1176 float32", _maps),
        Workload("images", 64, f"{IMAGES} images of 512 x 512 RGB", _images),
        Workload("strings", 50_000, "short texts", _strings),
        Workload("long texts", 512, "texts of 32 KiB", _long_texts),
        Workload("tiny", 1, "three small fields", _tiny),
    )
}
