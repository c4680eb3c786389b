"""Reads Rust as far as the checks of ci/ need: tokens, and blocks with what they belong to.

It is tolerant: what it does not know is a token like any other. No nested block comments, and no
braces in a function's signature.
"""

import bisect
import re

TOKEN = re.compile(r"""
    (?P<comment>//[^\n]*|/\*.*?\*/)
  | (?P<string>[bc]?r(?P<hashes>\#*)".*?"(?P=hashes) | [bc]?"(?:\\.|[^"\\])*" | b?'(?:\\.[^']*|[^'\\])')
  | (?P<lifetime>'[A-Za-z_]\w*)
  | (?P<word>\w+)
  | (?P<mark>\S)
""", re.DOTALL | re.VERBOSE)
CLOSE = {"(": ")", "[": "]", "{": "}"}


class Token:
    __slots__ = "text", "kind", "start", "end"

    def __init__(self, match):
        self.text, self.kind = match[0], match.lastgroup if match.lastgroup != "hashes" else "string"
        self.start, self.end = match.span()


def tokens(text):
    """The tokens of a text, without its comments."""
    return [token for token in map(Token, TOKEN.finditer(text)) if token.kind != "comment"]


class Block:
    """A pair of braces: `kind` is fn, impl, mod, trait, another keyword, or None."""

    def __init__(self, kind, name, parent, header, opens):
        self.kind, self.name, self.parent, self.header, self.opens = kind, name, parent, header, opens
        self.closes = None

    def within(self, kind):
        """The innermost block of this kind around this one, or None."""
        block = self.parent
        while block and block.kind != kind:
            block = block.parent
        return block

    def path(self):
        """`Type::function`, or `function`."""
        owner = self.parent if self.parent and self.parent.kind in ("impl", "trait") else None
        return f"{owner.name}::{self.name}" if owner else self.name


class File:
    def __init__(self, path, text=None):
        self.path, self.text = path, path.read_text() if text is None else text
        self.tokens = tokens(self.text)
        self.blocks = list(self._blocks())
        self.starts = [match.start() for match in re.finditer(r"^", self.text, re.MULTILINE)]
        # By custom `mod tests;` stands under cfg(test).
        self.all_tests = path.name == "tests.rs"
        self.tests = [block for block in self.blocks if self.all_tests or self._is_test(block)]

    def line(self, offset):
        return bisect.bisect_right(self.starts, offset)

    def in_tests(self, index):
        """Whether a token is in a block or file under `cfg(test)`."""
        return self.all_tests or any(block.header <= index <= block.closes for block in self.tests)

    def _is_test(self, block):
        if block.kind is None:
            return False
        header = "".join(token.text for token in self.tokens[block.header:block.opens])
        return "cfg(test)" in header or "#[test]" in header

    def _blocks(self):
        """Every block, outer ones first."""
        found, open_blocks, brackets, begin = [], [], [], 0
        for index, token in enumerate(self.tokens):
            if token.kind != "mark":
                continue
            if token.text in "([":
                brackets.append(token.text)
            elif token.text in ")]":
                brackets.pop()
            elif token.text == "{":
                kind, name = self._header(begin, index) if not brackets or brackets[-1] == "{" else (None, None)
                block = Block(kind, name, open_blocks[-1] if open_blocks else None, begin, index)
                found.append(block)
                open_blocks.append(block)
                brackets.append("{")
                begin = index + 1
            elif token.text == "}":
                brackets.pop()
                open_blocks.pop().closes = index
                begin = index + 1
            elif token.text == ";" and (not brackets or brackets[-1] == "{"):
                begin = index + 1
        return found

    def _header(self, begin, end):
        words = [token.text for token in self.tokens[begin:end]]
        for keyword in ("fn", "mod", "trait", "struct", "enum", "union"):
            if keyword in words[:-1]:
                return keyword, words[words.index(keyword) + 1]
        if "impl" in words:
            rest = words[words.index("impl") + 1:]
            if rest[:1] == ["<"]:
                depth = 0
                for at, word in enumerate(rest):
                    depth += {"<": 1, ">": -1 if rest[at - 1] not in "-=" else 0}.get(word, 0)
                    if depth == 0:
                        rest = rest[at + 1:]
                        break
            if "where" in rest:
                rest = rest[:rest.index("where")]
            if "for" in rest:
                rest = rest[rest.index("for") + 1:]
            names = [word for at, word in enumerate(rest) if word[0].isalpha() and "<" not in rest[:at]]
            return "impl", names[-1] if names else "?"
        return None, None
