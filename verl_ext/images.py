"""The one way to decode an image: a model sees what a person sees in an image viewer.

Pillow returns what a file stores. Here the camera's orientation is applied, transparency is shown over white, colours
are converted to sRGB, and samples of more than 8 bits are scaled. Checks, training, validation, evaluation, synthesis
and the leakage guard all decode here. Files themselves are never rewritten. Pure: bytes in, pixels out.
"""

import importlib.util
import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from PIL import ExifTags, Image, ImageCms
from PIL.GifImagePlugin import GifImageFile
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION

Change = Literal[
    "orientation", "transparency", "CMYK", "LAB", "16 bits", "colour profile", "first of several frames", "metadata"
]
Fault = Literal["unreadable image", "truncated image", "huge image", "image mode"]

# Pillow's own limit, above which it warns of a decompression bomb.
MAX_PIXELS = 89_478_485
# Formats that Pillow or a plugin opens although they are neither photos nor drawings: documents (Ghostscript would run
# them), video, measurements, brushes, cursors, game textures, and formats that Pillow recognises but cannot decode.
NOT_IMAGES = frozenset(
    (
        *("BLP", "BUFR", "CUR", "DDS", "EPS", "FITS", "FLI", "FTEX", "GBR", "GRIB", "HDF5", "IMT", "IPTC", "MCIDAS"),
        *("MPEG", "SPIDER", "WMF", "XVTHUMB"),
    )
)
_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The orientations that swap width and height.
_SIDEWAYS = (5, 6, 7, 8)
# The pixel mode of a colour profile, by its colour space.
_PROFILED = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}

# The extra `heif`. Without it, .heic files are unreadable images, and a folder of photos reports them as left out.
if importlib.util.find_spec("pillow_heif"):
    import pillow_heif

    pillow_heif.register_heif_opener()
Image.init()
# In Pillow's order: formats with a signature come before formats without.
FORMATS = tuple(name for name in Image.ID if name not in NOT_IMAGES)


class ImageError(ValueError):
    """An image cannot be decoded; `kind` says why, and the message says what was found."""

    def __init__(self, kind: Fault, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass(frozen=True)
class DecodedImage:
    """`image`: RGB, without metadata. `changes`: how its pixels differ from those stored in the file."""

    image: Image.Image
    changes: tuple[Change, ...]


def suffixes() -> frozenset[str]:
    """The file name suffixes of the formats that `decode` reads, in lower case and with their dot."""
    # MPO, several JPEGs in one file, is opened as a JPEG.
    return frozenset(suffix for suffix, name in Image.EXTENSION.items() if name in (*FORMATS, "MPO"))


def stored_size(encoded: bytes) -> tuple[int, int]:
    """Width and height in the header of an image; the orientation may swap the two. Raises like `decode`."""
    return _open(encoded).size


def shown_size(encoded: bytes) -> tuple[int, int]:
    """Width and height of the decoded image, from its header and metadata alone. Raises like `decode`."""
    opened = _open(encoded)
    width, height = opened.size
    # Pillow has already swapped them for a TIFF.
    is_sideways = opened.format != "TIFF" and _orientation(opened)[0] in _SIDEWAYS
    return (height, width) if is_sideways else (width, height)


def decode(encoded: bytes) -> DecodedImage:
    """Decode an image file as a person sees it.

    Only the first of several frames or pages is decoded. Transparent pixels are shown over white. CMYK, LAB and colours
    with an embedded profile are converted to sRGB, as colour-managed viewers do. 16-bit samples are scaled to 8 bits.
    Damaged metadata is ignored, as in viewers, and reported as the change "metadata".

    Raises:
        ImageError: the bytes are not an image, are incomplete, have over `MAX_PIXELS` pixels, or have values without a
            known range (floating point, 32 bits).
    """
    opened = _open(encoded)
    changes: list[Change] = []
    if opened.format == "JPEG2000" and opened.mode != "I;16" and (bits := _jpeg_2000_bits(encoded)) > 8:
        raise ImageError(
            "image mode", f"is JPEG 2000 in {bits} bits, whose white Pillow decodes as black: save it as PNG"
        )
    stored = _raw_modes(opened)
    if opened.mode.startswith("I") or ";16" in stored:
        changes.append("16 bits")
    orientation, is_readable = _orientation(opened)
    if not is_readable:
        changes.append("metadata")
    try:
        # The frames of a PSD are its layers, which are loaded merged.
        if getattr(opened, "n_frames", 1) > 1 and opened.format != "PSD":
            changes.append("first of several frames")
        frame = opened.tile[0].extents if isinstance(opened, GifImageFile) else None
        opened.load()
    # Third-party decoders may raise any exception on damaged data.
    except Exception as error:
        raise ImageError("truncated image", f"cannot be decoded to its end: {error}") from error
    if orientation in _TRANSPOSED:
        changes.append("orientation")
        # Pillow has applied the orientation of a TIFF by now and removed it from the metadata.
        orientation = _orientation(opened)[0]
    colours, alpha = _split(opened, stored)
    if frame and alpha is None:
        # Viewers leave the area beside a smaller first frame blank.
        alpha = Image.new("L", opened.size, 0)
        alpha.paste(255, frame)
    if colours.mode in ("CMYK", "LAB"):
        changes.append("CMYK" if colours.mode == "CMYK" else "LAB")
    image, profile = _to_srgb(colours, opened.info.get("icc_profile"))
    if profile is not None:
        changes.append(profile)
    if alpha is not None and alpha.getextrema() != (255, 255):
        changes.append("transparency")
        shown = Image.new("RGB", image.size, "white")
        shown.paste(image, mask=alpha)
        image = shown
    if orientation in _TRANSPOSED:
        image = image.transpose(_TRANSPOSED[orientation])
    # Remove the metadata, so that nothing applies it a second time.
    image.info = {}
    return DecodedImage(image, tuple(dict.fromkeys(changes)))


def _open(encoded: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # The size is checked below, before anything is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError("huge image", str(error)) from error
    # Third-party decoders may raise any exception on bytes of another format.
    except Exception as error:
        raise ImageError(
            "unreadable image",
            f"is not an image that Pillow reads: {len(encoded)} bytes, starting with {encoded[:8]!r}",
        ) from error
    width, height = opened.size
    if width * height > MAX_PIXELS:
        raise ImageError("huge image", f"has {width} x {height} px, over {MAX_PIXELS} in all")
    return opened


def _orientation(image: Image.Image) -> tuple[int, bool]:
    """The EXIF orientation, 1 if there is none, and whether the metadata can be read."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1), True
    # Like viewers, show a photo with damaged metadata; the change is reported.
    except Exception:
        return 1, False


def _raw_modes(image: Image.Image) -> str:
    """The raw modes in which the file stores its samples, such as RGB;16B, by Pillow's names; empty after loading."""
    return " ".join(str(tile.args) for tile in getattr(image, "tile", ()))


def _jpeg_2000_bits(encoded: bytes) -> int:
    """Bits per sample, from the SIZ segment at the start of the codestream."""
    start = encoded.find(b"\xff\x4f\xff\x51")
    return (encoded[start + 42] & 0x7F) + 1


def _split(image: Image.Image, stored: str) -> tuple[Image.Image, Image.Image | None]:
    """The colours of an image, as L, RGB, CMYK or LAB with 8 bits, and its alpha channel, L, if it has one."""
    if image.mode.startswith(("I", "F")):
        return _split_wide(image, stored)
    if not image.has_transparency_data:
        if image.mode in ("L", "RGB", "CMYK", "LAB"):
            return image, None
        return image.convert("L" if image.mode == "1" else "RGB"), None
    if image.format == "PNG" and "transparency" in image.info:
        image.info["transparency"] = _transparent(image.info["transparency"], image.mode, stored)
    # Divide out premultiplied alpha; Pillow converts each of these modes to a single other mode.
    if premultiplied := {"La": "LA", "RGBa": "RGBA"}.get(image.mode):
        image = image.convert(premultiplied)
    if image.mode == "LA":
        return image.getchannel("L"), image.getchannel("A")
    image = image.convert("RGBA")
    return image.convert("RGB"), image.getchannel("A")


def _split_wide(image: Image.Image, stored: str) -> tuple[Image.Image, Image.Image | None]:
    # PGM is the only format with 32-bit integers that defines white; Pillow scales it to 16 bits.
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        values = "floating point numbers" if image.mode == "F" else "signed or 32-bit integers"
        raise ImageError("image mode", f"holds {values} without a known black and white")
    samples = image.convert("I")
    # The TIFF tag says that 0 is white, which Pillow respects for 8 bits only.
    inverted = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(PHOTOMETRIC_INTERPRETATION) == 0
    colours = samples.point(_scale(4095 if "I;12" in stored else 65535, inverted), "L")
    transparent = image.info.get("transparency")
    if transparent is None:
        return colours, None
    return colours, samples.point([0 if value == transparent else 255 for value in range(65536)], "L")


@lru_cache
def _scale(white: int, inverted: bool) -> list[int]:
    """The 8-bit value of every 16-bit value."""
    scaled = [round(255 * min(value, white) / white) for value in range(65536)]
    return [255 - value for value in scaled] if inverted else scaled


def _transparent(value: Any, mode: str, stored: str) -> Any:
    """The transparent colour of a PNG, scaled to 8 bits like Pillow's pixels, because Pillow does not scale it."""
    if mode == "RGB" and ";16" in stored:
        return tuple(sample >> 8 for sample in value)
    if mode == "L" and stored in ("L;2", "L;4"):
        return value * (85 if stored == "L;2" else 17)
    return value


def _to_srgb(colours: Image.Image, profile: bytes | None) -> tuple[Image.Image, Change | None]:
    """The colours as RGB, and "colour profile" if an embedded profile was applied, "metadata" if it is damaged."""
    if not profile or colours.mode == "LAB":
        return colours.convert("RGB"), None
    try:
        transform = _transform(profile, colours.mode)
    except (OSError, ImageCms.PyCMSError):
        return colours.convert("RGB"), "metadata"
    if transform is None:
        return colours.convert("RGB"), None
    return transform.apply(colours), "colour profile"


@lru_cache
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from a profile to sRGB; None if it is sRGB or for another colour space, which viewers ignore."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if _PROFILED.get(source.profile.xcolor_space.strip()) != mode or "sRGB" in ImageCms.getProfileDescription(source):
        return None
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
