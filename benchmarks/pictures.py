"""Made-up pictures and the changes that hide a copy of one, for measuring and testing what finds copies.

Line drawings of geometry, black on white with letters and numbers, as those of GeoQA and Geometry3K; and pictures with
the smooth colours, edges and noise of photographs. Everything is a function of a seed. What compares them is not here.
"""

import io
import math
from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Change = Callable[[Image.Image], Image.Image]


def drawing(seed: int) -> Image.Image:
    """A geometry drawing, RGB, 200 to 600 px a side: a polygon or a circle, lines in it, letters at the points."""
    random = Random(f"drawing/{seed}")
    width, height = random.randint(200, 600), random.randint(200, 600)
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    stroke = random.randint(1, 3)
    font = ImageFont.load_default(random.randint(14, 28))
    margin = random.uniform(0.04, 0.15)

    def place(x: float, y: float) -> tuple[float, float]:
        return width * (margin + (1 - 2 * margin) * x), height * (margin + (1 - 2 * margin) * y)

    if random.random() < 0.4:
        angles = sorted(random.uniform(0, math.tau) for _ in range(random.randint(2, 5)))
        points = [place(0.5 + 0.5 * math.cos(angle), 0.5 + 0.5 * math.sin(angle)) for angle in angles]
        pen.ellipse((*place(0, 0), *place(1, 1)), outline="black", width=stroke)
        if random.random() < 0.5:
            points.append(place(0.5, 0.5))
    else:
        points = [place(random.random(), random.random()) for _ in range(random.randint(3, 5))]
    for start, end in zip(points, points[1:] + points[:1], strict=True):
        pen.line((*start, *end), fill="black", width=stroke)
    for _ in range(random.randint(0, 2)):
        start, end, corner = random.choice(points), random.choice(points), random.choice(points)
        share = random.random()
        foot = (start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1]))
        pen.line((*corner, *foot), fill="black", width=stroke)
        points.append(foot)
    for point, letter in zip(points, "ABCDEFGHIJ", strict=False):
        pen.text((point[0] + random.randint(-20, 5), point[1] + random.randint(-24, 4)), letter, "black", font)
    if random.random() < 0.7:
        start, end = random.sample(points, 2)
        pen.text(((start[0] + end[0]) / 2, (start[1] + end[1]) / 2), str(random.randint(2, 90)), "black", font)
    return image


def relabelled(seed: int) -> Image.Image:
    """The drawing of that seed with one number more, somewhere in it."""
    image, random = drawing(seed), Random(f"label/{seed}")
    place = (random.uniform(0.2, 0.7) * image.width, random.uniform(0.2, 0.7) * image.height)
    ImageDraw.Draw(image).text(place, str(random.randint(2, 90)), "black", ImageFont.load_default(20))
    return image


def photo(seed: int) -> Image.Image:
    """A picture like a photograph, RGB, 200 to 600 px a side: smooth noise of three scales, a few areas, fine noise."""
    generator = np.random.default_rng(seed)
    width, height = (int(side) for side in generator.integers(200, 600, 2))
    pixels = np.zeros((height, width, 3))
    for cells, weight in ((3, 70), (8, 45), (24, 25)):
        noise = Image.fromarray(generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        pixels += weight * (np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), float) / 127.5 - 1)
    image = Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(int(generator.integers(0, 4))):
        x, y, w, h = generator.random(4) * (width, height, width / 3, height / 3)
        color = tuple(int(value) for value in generator.integers(0, 256, 3))
        (pen.ellipse if generator.random() < 0.5 else pen.rectangle)((x, y, x + w, y + h), fill=color)
    noisy = np.asarray(image, float) + generator.normal(0, 6, (height, width, 1))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, format: str = "PNG", quality: int = 90) -> bytes:
    """The bytes of the picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, format, quality=quality)
    return buffer.getvalue()


def recompressed(image: Image.Image, quality: int = 50) -> Image.Image:
    """What is left after a JPEG of that quality."""
    return Image.open(io.BytesIO(encode(image, "JPEG", quality))).convert("RGB")


def resized(image: Image.Image, factor: float) -> Image.Image:
    """The picture at another size."""
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


def cropped(image: Image.Image, left: float = 0, top: float = 0, right: float = 0, bottom: float = 0) -> Image.Image:
    """The picture without these shares of its width and height."""
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


# The changes that a copy must be found through.
CHANGES: dict[str, Change] = {
    "half size": lambda image: resized(image, 0.5),
    "1.7 times the size": lambda image: resized(image, 1.7),
    "JPEG, quality 50": recompressed,
    "half size, JPEG 50": lambda image: recompressed(resized(image, 0.5)),
    "5 % cropped, left": lambda image: cropped(image, left=0.05),
    "5 % cropped, top": lambda image: cropped(image, top=0.05),
    "5 % cropped, right": lambda image: cropped(image, right=0.05),
    "5 % cropped, bottom": lambda image: cropped(image, bottom=0.05),
    "5 % cropped, left and top": lambda image: cropped(image, left=0.05, top=0.05),
    "5 % cropped, all around": lambda image: cropped(image, 0.05, 0.05, 0.05, 0.05),
    "2 % cropped, all around": lambda image: cropped(image, 0.02, 0.02, 0.02, 0.02),
    "3 % cropped left, 4 % bottom": lambda image: cropped(image, left=0.03, bottom=0.04),
    "cropped all around, half size, JPEG 50": lambda image: recompressed(
        resized(cropped(image, 0.05, 0.05, 0.05, 0.05), 0.5)
    ),
}
