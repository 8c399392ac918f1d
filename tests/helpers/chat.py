"""Small tokenizers with chat templates in the forms of well-known models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from .tokenizers import save_tokenizer

CHATML = """\
{%- if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif -%}
{%- if tools %}{{ '<|im_start|>system\\n' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}
    {{- '<|im_end|>\\n' }}{% endif -%}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
    {%- for call in message.tool_calls or [] %}
        {{- '\\n<tool_call>\\n' + (call | tojson) + '\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# Only the last answer has thoughts, so that the turns before it look different at the end of a conversation.
THINKING = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' and loop.last %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}
    {%- if message.role == 'assistant' and '</think>' in message.content %}
        {{- message.content.split('</think>')[-1] }}
    {%- else %}{{ message.content }}{% endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

LLAMA3 = """\
{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

GEMMA = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate') }}
    {%- endif %}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

# Without a generation prompt, and with marks that are plain text.
MISTRAL = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}
    {%- else %}{{ ' ' + message['content'] + eos_token }}{% endif %}
{%- endfor %}"""

GENERATION = """\
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}
        {{- '\\n' }}
    {%- else %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endif %}
{%- endfor %}"""

# The conversation, not only its last turn, ends with a token.
ENDED = """\
{%- for message in messages %}{{ '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""

# The last answer ends with another token than the answers before it.
RETURNED = """\
{%- for message in messages %}
    {{- '<|start|>' + message.role + '<|message|>' + message.content }}
    {{- '<|return|>' if loop.last and message.role == 'assistant' else '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"""

# Thoughts are asked for, but answers have none.
PROMPTED = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"""

# Contents must be lists of parts.
PARTS = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- for part in message.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# Contents must be lists of parts, and the conversation ends with a token.
PARTS_ENDED = PARTS.removesuffix("{% endif %}") + "{% else %}{{ eos_token }}{% endif %}"

DATED = "{{ strftime_now('%d %b %Y') + '\\n' }}" + CHATML

IM_TOKENS = ("<|im_start|>", "<|im_end|>")
FORMS: dict[str, tuple[str, Sequence[str]]] = {
    "chatml": (CHATML, IM_TOKENS),
    "thinking": (THINKING, (*IM_TOKENS, "<think>", "</think>")),
    "llama3": (LLAMA3, ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    "gemma": (GEMMA, ("<bos>", "<start_of_turn>", "<end_of_turn>")),
    "mistral": (MISTRAL, ("<s>", "</s>")),
    "generation": (GENERATION, IM_TOKENS),
    "ended": (ENDED, ("<|user|>", "<|assistant|>", "<|end|>")),
    "returned": (RETURNED, ("<|start|>", "<|message|>", "<|end|>", "<|return|>")),
    "prompted": (PROMPTED, (*IM_TOKENS, "<think>")),
    "parts": (PARTS, IM_TOKENS),
    "parts-ended": (PARTS_ENDED, IM_TOKENS),
    "dated": (DATED, IM_TOKENS),
}


def save_chat_tokenizer(folder: Path, form: str, added: Sequence[str] = ()) -> Path:
    """Save the small tokenizer with the tokens and the chat template of a form, and `added` behind them."""
    template, tokens = FORMS[form]
    save_tokenizer(folder, [*tokens, *added])
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens(["<tool_call>", "</tool_call>"])  # as in Qwen: not special
    if form in ("llama3", "gemma", "mistral"):
        tokenizer.bos_token = tokens[0]
    if form == "mistral":
        tokenizer.eos_token = "</s>"
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder
