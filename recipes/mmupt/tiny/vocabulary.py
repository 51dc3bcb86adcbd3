r"""Vocabularies and tokenizers of the tiny models, with Qwen's special tokens and chat template.

Every word is one token, and so are `\boxed{` and each number from 0 to 99, or to 199 for the hard task.
`demonstrations.py` builds sentences from these words.
"""

from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
UNKNOWN = "<unk>"
SPECIAL_TOKENS = (
    END_OF_TEXT, TURN_START, TURN_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD, UNKNOWN,
)  # fmt: skip
NUMBERS = tuple(str(number) for number in range(100))
SIGNS = ("\n", "\\boxed{", "}", ".", ",", "?", ":", "+", "-", "*", "/", "=")
WORDS = """
    system user assistant you are helpful
    a an and answer any area around ask about bar bars by color correct describe different difference example figure
    final following for height high how image in is large larger largest left leg legs length long many middle minus
    more much new no not number of one or other perimeter picture put question reason rectangle right shape short
    shorter shortest side sides small so step sum tall taller tallest than the there these think this three times to
    total triangle two way what which wide width with within yes your please
    red green blue yellow purple orange
"""
TOKENS = (*SPECIAL_TOKENS, *SIGNS, *NUMBERS, *WORDS.split())
HARD_TOKENS = (*TOKENS, *map(str, range(100, 200)), "four", "frame", "hole", "less", "perimeters", "squares", "ways")

# Qwen2.5-VL's template without the default system prompt, which would make every prompt a third longer.
CHAT_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer(tokens: Sequence[str] = TOKENS) -> PreTrainedTokenizerFast:
    """Build the tokenizer; its length is the number of tokens, including special tokens.

    Encoding lower-cases text and splits it at spaces and signs. Decoding puts one space between tokens, but none inside
    the braces of `\\boxed{10}`, so that text written this way is decoded unchanged.
    """
    tokenizer = Tokenizer(WordLevel({token: index for index, token in enumerate(tokens)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    # "removed" with invert drops text that the pattern does not match: white space other than the line break, which
    # ends a turn in Qwen's template and which veRL looks up as one token.
    pieces = Regex(r"\n|\\boxed\{|[a-z]+|\d+|[^\sa-z\d]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pieces, "removed", invert=True)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),
            decoders.Fuse(),
            decoders.Replace("{ ", "{"),
            decoders.Replace(" }", "}"),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[TURN_START, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD],
        chat_template=CHAT_TEMPLATE,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
