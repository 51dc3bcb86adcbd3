"""Random pictures and questions, and alterations of them, to measure and test the leakage search.

Line drawings of geometry (black on white with letters and numbers, like GeoQA's and Geometry3K's), pictures with the
smooth colours, edges and noise of photographs, and questions from templates. Everything is a function of a seed.
"""

import io
import math
from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

Change = Callable[[Image.Image], Image.Image]

# Templates long enough to identify a question by its text; points and numbers vary.
LONG = (
    "As shown in the figure, in triangle {p} the angle at {q} is {a} degrees and side {r} is {b}. What is its area?",
    "A ladder of {a} m leans on a wall and its foot is {b} m away from it. Which height does it reach?",
    "In circle O, {r} is a diameter, {q} lies on the circle and angle {p} is {a}°. If the radius is {b}, find {q}O.",
    "The two diagonals of rhombus {p} measure {a} and {b} centimetres. Work out the perimeter of the rhombus.",
    "Lines {r} and {p} are parallel and cut by a third. One angle is {a} degrees; find the others, given {q} = {b}.",
    "A cone with base radius {a} and slant height {b} is unrolled. How large is the angle of the sector {p}?",
    "Points {q}, {r} and {p} lie on a number line, {a} and {b} units apart. Where is the middle of the outer two?",
    "The bar chart shows {a} apples and {b} pears sold by shop {p}. Which share of all fruit are the apples?",
    "From the top of tower {p}, {a} m high, a boat is seen under an angle of {b} degrees. How far is it from the foot?",
    "A rectangle {p} of {a} by {b} is folded along its diagonal {r}. What area do the two layers have in common?",
    "Quadrilateral {p} has a right angle at {q}. Its sides {r} and the next are {a} and {b}; what is its diagonal?",
    "A tank is filled through pipe {p} in {a} minutes and through pipe {q} in {b}. How long do both of them take?",
)
SHORT = (
    "Find x.",
    "What is the length of {r} in the figure?",
    "Find the area of the shaded region.",
    "Find angle {q}.",
)


def long_question(seed: int) -> str:
    """A distinctive question of at least 18 words."""
    return _filled(LONG, Random(f"long/{seed}"))


def question(seed: int) -> str:
    """A question as in geometry data sets: one in three is short and fits many images."""
    random = Random(f"question/{seed}")
    return _filled(SHORT, random) if random.random() < 1 / 3 else long_question(seed)


def _filled(templates: tuple[str, ...], random: Random) -> str:
    points = "".join(random.sample("ABCDEFGHKLMNPQRSTUVW", 3))
    first, second = (random.randint(20, 9990) / 10 for _ in range(2))
    return random.choice(templates).format(p=points, q=points[0], r=points[1:], a=first, b=second)


def reworded(text: str) -> str:
    """Change case, spacing and punctuation of a question."""
    return "  " + text.upper().replace(" ", " \n ").replace(",", "").replace("?", " ?")


def drawing(seed: int) -> Image.Image:
    """An RGB drawing with sides of 200 to 600 px: a polygon or circle with lines in it and letters at its points."""
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
    """The drawing of a seed with one more number, at a random place."""
    image, random = drawing(seed), Random(f"label/{seed}")
    place = (random.uniform(0.2, 0.7) * image.width, random.uniform(0.2, 0.7) * image.height)
    ImageDraw.Draw(image).text(place, str(random.randint(2, 90)), "black", ImageFont.load_default(20))
    return image


def photo(seed: int) -> Image.Image:
    """An RGB picture like a photograph, with sides of 200 to 600 px: noise at three scales, a few areas, fine noise."""
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
    """Encode a picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, quality=quality)
    return buffer.getvalue()


def recompressed(image: Image.Image, quality: int = 50) -> Image.Image:
    """Encode as JPEG and decode again."""
    return Image.open(io.BytesIO(encode(image, "JPEG", quality))).convert("RGB")


def resized(image: Image.Image, factor: float) -> Image.Image:
    """Scale both sides by a factor."""
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


def cropped(image: Image.Image, left: float = 0, top: float = 0, right: float = 0, bottom: float = 0) -> Image.Image:
    """Cut these shares of width and height off the edges."""
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


def trimmed(image: Image.Image) -> Image.Image:
    """Cut off near-white margins."""
    return image.crop(ImageOps.invert(image.convert("L")).point(lambda value: 255 * (value > 16)).getbbox())


def padded(image: Image.Image, share: float = 0.1, color: str | tuple[int, int, int] = "white") -> Image.Image:
    """Add a margin on all sides: a share of the width and height."""
    return ImageOps.expand(image, (round(share * image.width), round(share * image.height)), color)


def squared(image: Image.Image) -> Image.Image:
    """Centre the picture on a white square."""
    return ImageOps.pad(image, (max(image.size),) * 2, color="white")


def captioned(
    image: Image.Image,
    text: str = "Figure 3: the figure",
    top: bool = False,
    colors: tuple[str, str] = ("white", "black"),
) -> Image.Image:
    """Add a strip of text below or above; `colors` are those of strip and text."""
    strip = max(14, round(0.12 * image.height))
    result = Image.new("RGB", (image.width, image.height + strip), colors[0])
    result.paste(image, (0, strip if top else 0))
    place = (image.width / 2, strip / 2 if top else image.height + strip / 2)
    ImageDraw.Draw(result).text(place, text, colors[1], ImageFont.load_default(max(8, 0.6 * strip)), anchor="mm")
    return result


def turned(image: Image.Image, degrees: float) -> Image.Image:
    """Rotate counterclockwise; the frame keeps its size."""
    return image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor="white")


# Changes after which a copy must still be found.
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
    "margins trimmed": trimmed,
    "margins trimmed, half size, JPEG 50": lambda image: recompressed(resized(trimmed(image), 0.5)),
    "padded by 10 %": padded,
    "padded by 10 % in off-white, JPEG 50": lambda image: recompressed(padded(image, 0.1, (244, 241, 232))),
    "padded by 10 % in black": lambda image: padded(image, 0.1, "black"),
    "on a square": squared,
    "empty strip below": lambda image: captioned(image, ""),
    "caption below": captioned,
    "title above": lambda image: captioned(image, top=True),
}
# Changes after which a copy may be missed.
MISSED: dict[str, Change] = {
    "10 % cropped, all around": lambda image: cropped(image, 0.1, 0.1, 0.1, 0.1),
    "mirrored": ImageOps.mirror,
    "5 % cropped all around, padded by 10 %": lambda image: padded(cropped(image, 0.05, 0.05, 0.05, 0.05)),
    "padded by 10 %, half size, JPEG 50": lambda image: recompressed(resized(padded(image), 0.5)),
    "caption below, half size, JPEG 50": lambda image: recompressed(resized(captioned(image), 0.5)),
    "turned by 1 degree": lambda image: turned(image, 1),
    "turned by 2 degrees": lambda image: turned(image, 2),
    "turned by 90 degrees": lambda image: image.rotate(90, expand=True),
    "black and white exchanged": ImageOps.invert,
}
