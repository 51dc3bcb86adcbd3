"""Decoded images look as in an image viewer, however their file stores them."""

import base64
import io
import struct
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from verl_ext.images import FORMATS, ImageError, decode, shown_size, stored_size, suffixes

WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (255, 0, 0)
SIZE = (40, 30)


# `drawing()` in the format of phone photos, by `heif-enc -q 50` of libheif 1.15.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAa1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAAA5waXRt"
    "AAAAAAACAAAAEGlkYXQAAAAAACgAHgAAADhpbG9jAQAAAERAAAIAAQAAAAAAAAHRAAEAAAAAAAAAcQACAAEAAAAAAAAAAQAAAAAAAAAIAAAA"
    "OGlpbmYAAAAAAAIAAAAVaW5mZQIAAAEAAQAAaHZjMQAAAAAVaW5mZQIAAAAAAgAAZ3JpZAAAAADYaXBycAAAALZpcGNvAAAAdmh2Y0MBA3AA"
    "AAAAAAAAAAAe8AD8/fj4AAAPAyAAAQAYQAEMAf//A3AAAAMAkAAAAwAAAwAeugJAIQABACpCAQEDcAAAAwCQAAADAAADAB6gIIEFluqumubg"
    "QEDAgAAAAwCAAAADAIQiAAEABkQBwXPBiQAAABRpc3BlAAAAAAAAAEAAAABAAAAAFGlzcGUAAAAAAAAAKAAAAB4AAAAQcGl4aQAAAAADCAgI"
    "AAAAGmlwbWEAAAAAAAAAAgABAoECAAICA4QAAAAaaXJlZgAAAAAAAAAOZGltZwACAAEAAQAAAHltZGF0AAAAbSgBrxMhuGyY5fowv+3k0XM4"
    "j1O7i/OO8em3K0mnadJnHOn59zdtWL9MCZYfTdSBbzIu2mUGtsbxZNk9zGkK0TEE8WEik/IvUcNk2YdH37tc+avoqPxF6rUFZ83YvdwZEP0Y"
    "/TJT3OjZh+SA0Cg="
)


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def drawing(mode: str = "RGB") -> Image.Image:
    """Red at the lower right, black at the upper left, white otherwise."""
    image = Image.new("RGB", SIZE, "white")
    image.paste(BLACK, (0, 0, 20, 15))
    image.paste(RED, (20, 15, 40, 30))
    return image.convert(mode)


def bar_on_transparency() -> Image.Image:
    """A black bar on a transparent background, which is black, too, without its alpha channel."""
    image = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (10, 10, 30, 20))
    return image


def png(width: int, height: int, bits: int, colour_type: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Encode a PNG of any bit depth, which Pillow can read but not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    content = b"".join(chunk(*part) for part in (*chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + content


def shown(encoded: bytes, *places: tuple[int, int]) -> list[object]:
    image = decode(encoded).image
    assert image.mode == "RGB" and not image.info and shown_size(encoded) == image.size
    return [image.getpixel(place) for place in places]


# Per EXIF orientation: how a viewer turns the stored image.
TURNED: dict[int, Callable[[Image.Image], Image.Image]] = {
    1: lambda image: image,
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.rotate(180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(90, expand=True),
    6: lambda image: image.rotate(-90, expand=True),
    7: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(-90, expand=True),
    8: lambda image: image.rotate(90, expand=True),
}


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "JPEG", "AVIF"])
@pytest.mark.parametrize("orientation", TURNED)
def test_the_orientation_of_the_camera_is_applied(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(form, {})
    encoded = encode(drawing(), form, exif=exif, **lossless)
    decoded = decode(encoded)
    expected = TURNED[orientation](drawing())
    assert decoded.image.size == expected.size
    for place in ((2, 2), (expected.width - 3, 2), (2, expected.height - 3)):
        assert decoded.image.getpixel(place) == pytest.approx(expected.getpixel(place), abs=12)
    assert decoded.changes == (() if orientation == 1 else ("orientation",))
    assert sorted(stored_size(encoded)) == sorted(expected.size) and shown_size(encoded) == expected.size


def test_damaged_metadata_is_ignored_and_reported() -> None:
    decoded = decode(encode(drawing(), exif=b"Exif\x00\x00no TIFF header at all"))
    assert decoded.image.tobytes() == drawing().tobytes() and decoded.changes == ("metadata",)


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        *(("LA", form) for form in ("PNG", "TIFF", "JPEG2000")),
        *(("RGBA", form) for form in ("PNG", "WEBP", "TIFF", "AVIF", "TGA", "JPEG2000")),
        ("PA", "TIFF"),
    ],
)
def test_transparent_pixels_are_white(mode: str, form: str) -> None:
    image = bar_on_transparency()
    image = image.convert("RGBA").quantize(8).convert("PA") if mode == "PA" else image.convert(mode)
    encoded = encode(image, form, **({"lossless": True} if form == "WEBP" else {}))
    assert shown(encoded, (1, 1), (20, 15)) == [WHITE, pytest.approx(BLACK, abs=4)]
    assert decode(encoded).changes == ("transparency",)


def test_half_transparent_black_is_grey() -> None:
    half = Image.new("LA", SIZE, (0, 128))
    assert shown(encode(half), (1, 1)) == [(127, 127, 127)]


def test_some_colours_of_a_palette_may_be_transparent() -> None:
    image = Image.new("P", SIZE, 0)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 0])
    image.paste(1, (0, 0, 10, 10))
    image.paste(2, (10, 0, 20, 10))
    single = encode(image, transparency=0)
    assert shown(single, (30, 20), (5, 5), (15, 5)) == [WHITE, RED, BLACK]
    graded = encode(image, transparency=bytes([0, 255, 51]))
    assert shown(graded, (30, 20), (5, 5), (15, 5)) == [WHITE, RED, (204, 204, 204)]
    assert shown(encode(image, "GIF", transparency=0), (30, 20), (5, 5)) == [WHITE, RED]


# One row of two pixels, the first of which has the colour that the file declares transparent, and black the second.
TRANSPARENT_COLOUR = {
    "1 bit": (1, 0, b"\x00\x80", struct.pack(">H", 1)),
    "2 bits": (2, 0, b"\x00\x80", struct.pack(">H", 2)),
    "4 bits": (4, 0, b"\x00\x70", struct.pack(">H", 7)),
    "8 bits": (8, 0, b"\x00\x70\x00", struct.pack(">H", 0x70)),
    "16 bits": (16, 0, b"\x00\x70\x01\x00\x00", struct.pack(">H", 0x7001)),
    "RGB": (8, 2, b"\x00\x70\x71\x72\x00\x00\x00", struct.pack(">HHH", 0x70, 0x71, 0x72)),
    "RGB of 16 bits": (
        *(16, 2, b"\x00\x70\x01\x71\x01\x72\x01\x00\x00\x00\x00\x00\x00"),
        struct.pack(">HHH", 0x7001, 0x7101, 0x7201),
    ),
}


@pytest.mark.parametrize("kind", TRANSPARENT_COLOUR)
def test_a_png_may_declare_one_colour_transparent(kind: str) -> None:
    bits, colour_type, row, colour = TRANSPARENT_COLOUR[kind]
    encoded = png(2, 1, bits, colour_type, row, (b"tRNS", colour))
    assert shown(encoded, (0, 0), (1, 0)) == [WHITE, BLACK]
    assert "transparency" in decode(encoded).changes


def test_an_opaque_alpha_channel_changes_nothing() -> None:
    assert decode(encode(drawing("RGBA"))).changes == ()


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_is_shown_in_its_colours(form: str) -> None:
    # Pillow writes JPEG as Adobe does, with its values inverted.
    encoded = encode(drawing("CMYK"), form)
    assert shown(encoded, (30, 5), (35, 25)) == [WHITE, pytest.approx(RED, abs=8)]
    assert decode(encoded).changes == ("CMYK",)


def test_lab_and_ycbcr_are_shown_in_their_colours() -> None:
    lab = ImageCms.profileToProfile(
        drawing(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    for image, changes in ((lab, ("LAB",)), (drawing("YCbCr"), ())):
        encoded = encode(image, "TIFF")
        assert shown(encoded, (30, 5), (35, 25)) == [pytest.approx(WHITE, abs=8), pytest.approx(RED, abs=8)]
        assert decode(encoded).changes == changes


def grey_16_bit(form: str) -> bytes:
    image = Image.new("I;16", (3, 1))
    for place, value in enumerate((0, 0x8000, 0xFFFF)):
        image.putpixel((place, 0), value)
    if form == "PGM":
        return b"P5 3 1 65535\n" + struct.pack(">HHH", 0, 0x8000, 0xFFFF)
    return encode(image, form)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG2000", "PGM"])
def test_16_bit_grey_is_scaled_and_not_clipped(form: str) -> None:
    encoded = grey_16_bit(form)
    assert shown(encoded, (0, 0), (1, 0), (2, 0)) == [BLACK, (128, 128, 128), WHITE]
    assert decode(encoded).changes == ("16 bits",)


def test_zero_is_white_in_a_tiff_that_says_so() -> None:
    encoded = encode(Image.new("I;16", SIZE, 0), "TIFF", tiffinfo={262: 0})
    assert Image.open(io.BytesIO(encoded)).tag_v2[262] == 0
    assert shown(encoded, (1, 1)) == [WHITE]


def test_16_bit_colours_keep_their_range() -> None:
    encoded = png(2, 1, 16, 2, b"\x00" + struct.pack(">6H", 0xFFFF, 0x8000, 0, 0x00FF, 0xFFFF, 0xFFFF))
    assert shown(encoded, (0, 0), (1, 0)) == [(255, 128, 0), pytest.approx((1, 255, 255), abs=1)]
    assert decode(encoded).changes == ("16 bits",)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_modes_without_a_known_value_range_are_refused(mode: str) -> None:
    with pytest.raises(ImageError, match="without a known black") as caught:
        decode(encode(Image.new(mode, SIZE), "TIFF"))
    assert caught.value.kind == "image mode"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_fewer_colours_are_no_change(mode: str) -> None:
    decoded = decode(encode(drawing(mode)))
    assert decoded.changes == () and decoded.image.tobytes() == drawing(mode).convert("RGB").tobytes()


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP", "TIFF", "MPO", "AVIF"])
def test_the_first_of_several_frames_is_shown(form: str) -> None:
    lossless = {"lossless": True} if form == "WEBP" else {}
    others = [Image.new("RGB", SIZE, "blue"), Image.new("RGB", SIZE, "lime")]
    encoded = encode(Image.new("RGB", SIZE, "red"), form, save_all=True, append_images=others, **lossless)
    assert shown(encoded, (20, 15)) == [pytest.approx(RED, abs=4)]
    assert decode(encoded).changes == ("first of several frames",)


def test_the_canvas_around_a_smaller_first_frame_is_white() -> None:
    gif = bytearray(encode(Image.new("P", (4, 4), 0), "GIF"))
    gif[6:10] = struct.pack("<HH", 12, 8)
    assert shown(bytes(gif), (1, 1), (10, 6)) == [BLACK, WHITE]


def test_an_embedded_colour_profile_is_applied_unless_it_is_srgb_or_damaged() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = drawing().tobytes()
    assert decode(encode(drawing(), icc_profile=srgb)).changes == ()
    damaged = decode(encode(drawing(), icc_profile=b"no profile"))
    assert damaged.changes == ("metadata",) and damaged.image.tobytes() == plain
    # sRGB under another name is applied, and leaves its red unchanged.
    other = decode(encode(drawing(), icc_profile=srgb.replace(b"s\0R\0G\0B", b"x\0R\0G\0B").replace(b"sRGB", b"xRGB")))
    assert other.changes == ("colour profile",)
    assert other.image.getpixel((35, 25)) == pytest.approx(RED, abs=3)


def test_formats_of_phones_are_read() -> None:
    assert {".heic", ".heif", ".avif", ".jfif", ".jp2", ".ppm", ".mpo", ".jpg", ".png", ".webp"} <= suffixes()
    assert not {".pdf", ".eps", ".ps", ".fits", ".mpg", ".mpeg", ".svg", ".mov", ".emf", ".h5"} & suffixes()
    assert "EPS" not in FORMATS
    assert shown(HEIC, (5, 5), (35, 5), (35, 25)) == [pytest.approx(colour, abs=12) for colour in (BLACK, WHITE, RED)]


def test_postscript_is_refused_although_pillow_could_run_it() -> None:
    with pytest.raises(ImageError, match="not an image") as caught:
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\nshowpage\n")
    assert caught.value.kind == "unreadable image"


def test_jpeg_2000_of_16_bits_in_colour_is_refused_because_pillow_turns_white_to_black() -> None:
    encoded = bytearray(encode(drawing(), "JPEG2000"))
    start = encoded.find(b"\xff\x4f\xff\x51")
    for sample in range(3):
        encoded[start + 42 + 3 * sample] = 15
    with pytest.raises(ImageError, match="16 bits") as caught:
        decode(bytes(encoded))
    assert caught.value.kind == "image mode"


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(ImageError, match="px, over") as caught:
        decode(png(10_000, 9_000, 8, 2, b""))
    assert caught.value.kind == "huge image"


@given(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "JPEG2000"]), st.data())
def test_a_damaged_file_gives_an_image_or_an_image_error(form: str, data: st.DataObject) -> None:
    encoded = bytearray(encode(drawing(), form))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode(bytes(encoded))
    except ImageError as error:
        assert error.kind and str(error)
    else:
        assert decoded.image.mode == "RGB" and shown_size(bytes(encoded)) == decoded.image.size


@pytest.mark.parametrize("form", sorted(set(FORMATS) & set(Image.SAVE)))
def test_the_header_says_the_size_of_the_decoded_image(form: str) -> None:
    mode = {"XBM": "1", "MSP": "1", "PALM": "1"}.get(form, "RGB")
    encoded = encode(drawing().convert(mode), form)
    assert shown_size(encoded) == decode(encoded).image.size
