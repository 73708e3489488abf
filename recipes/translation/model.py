"""A small encoder-decoder Transformer, pre-norm, with one embedding for source, target and output.

Source: Vaswani et al. 2017 (arXiv:1706.03762); norms before each part as in Xiong et al. 2020 (arXiv:2002.04745); tied
embeddings by Press and Wolf 2017 (arXiv:1608.05859). Shapes: B sentences, S source tokens, T target tokens, W width, H
heads, D = W / H, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
from tokens import PAD
from torch import Tensor, nn
from torch.nn import functional

KeysAndValues = tuple[Tensor, Tensor]
"""Each (B, H, length, D)."""


class Attention(nn.Module):
    """Multi-head attention. Keys have no bias: it would add the same to all scores of a query, and so do nothing."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.value, self.output = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)

    def keys_and_values(self, memory: Tensor) -> KeysAndValues:
        """Of what is attended to, (B, length, W)."""
        return self._split(self.key(memory)), self._split(self.value(memory))

    def forward(self, x: Tensor, memory: KeysAndValues, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """(B, T, W) of (B, T, W); `mask` (B, 1, 1, length) is True where there is something to attend to."""
        keys, values = memory
        mixed = functional.scaled_dot_product_attention(
            self._split(self.query(x)), keys, values, attn_mask=mask, is_causal=causal
        )
        return self.output(mixed.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, memory: KeysAndValues, mask: Tensor) -> Tensor:
        """What `forward` mixes by, as a mean over heads: (B, T, length), each row's sum is 1."""
        queries, (keys, _) = self._split(self.query(x)), memory
        scores = queries @ keys.transpose(-2, -1) / math.sqrt(keys.shape[-1])
        return scores.masked_fill(~mask, -math.inf).softmax(dim=-1).mean(dim=1)

    def _split(self, x: Tensor) -> Tensor:
        """(B, length, W) -> (B, H, length, D)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def feed_forward(width: int, hidden: int, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width))


class EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention, self.feed = Attention(width, heads), feed_forward(width, hidden, dropout)
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, S, W) of (B, S, W)."""
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, self.attention.keys_and_values(normed), mask))
        return x + self.dropout(self.feed(self.feed_norm(x)))


class DecoderLayer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention, self.cross = Attention(width, heads), Attention(width, heads)
        self.feed = feed_forward(width, hidden, dropout)
        self.attention_norm, self.cross_norm, self.feed_norm = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, past: KeysAndValues | None, source: KeysAndValues, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, T, W) of (B, T, W), and what asked the source for it, (B, T, W).

        `past` has the keys and values of all tokens up to the last one of x; None: x is all there is.
        """
        normed = self.attention_norm(x)
        own = self.attention.keys_and_values(normed) if past is None else past
        x = x + self.dropout(self.attention(normed, own, causal=past is None))
        asked = self.cross_norm(x)
        x = x + self.dropout(self.cross(asked, source, mask))
        return x + self.dropout(self.feed(self.feed_norm(x))), asked


class Transformer(nn.Module):
    """Source and target ids, (B, S) and (B, T), to logits of each target's next token, (B, T, V)."""

    def __init__(
        self, vocabulary: int, width: int, heads: int, layers: int, hidden: int, dropout: float, max_positions: int
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.register_buffer("positions", sinusoids(max_positions, width), persistent=False)
        self.encoder = nn.ModuleList(EncoderLayer(width, heads, hidden, dropout) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderLayer(width, heads, hidden, dropout) for _ in range(layers))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    @property
    def max_positions(self) -> int:
        return len(self.positions)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory, mask = self.encode(source)
        x = self.embed(target)
        for layer in self.decoder:
            x, _ = layer(x, None, layer.cross.keys_and_values(memory), mask)
        return self.logits(x)

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, W), and where there is a token: (B, 1, 1, S)."""
        mask = (source != PAD)[:, None, None, :]
        x = self.embed(source)
        for layer in self.encoder:
            x = layer(x, mask)
        return self.encoder_norm(x), mask

    def embed(self, ids: Tensor, first: int = 0) -> Tensor:
        """(B, T, W) of (B, T), which stand at positions from `first` on. Raises ValueError where there are too few."""
        end = first + ids.shape[1]
        if end > self.max_positions:
            raise ValueError(f"{end} tokens, and the model has {self.max_positions} positions: split the sentence")
        scaled = self.embedding(ids) * math.sqrt(self.embedding.embedding_dim)
        return self.dropout(scaled + self.positions[first:end])

    def logits(self, x: Tensor) -> Tensor:
        """(B, T, V) of (B, T, W)."""
        return functional.linear(self.decoder_norm(x), self.embedding.weight)

    def start(self, source: Tensor) -> "Decoding":
        """The state in which the first token is to come."""
        memory, mask = self.encode(source)
        return Decoding(self, mask, [layer.cross.keys_and_values(memory) for layer in self.decoder])


@dataclass
class Decoding:
    """Rows of a batch on their way, token by token: what has been computed is kept."""

    model: Transformer
    mask: Tensor
    """(rows, 1, 1, S)."""
    source: list[KeysAndValues]
    """Of the source, by layer: they stay the same."""
    past: list[KeysAndValues] | None = None
    """Of the target so far, by layer."""

    @property
    def length(self) -> int:
        """Tokens so far, BOS among them."""
        return 0 if self.past is None else self.past[0][0].shape[2]

    def step(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of what comes after `tokens`, (rows,): (rows, V). And attention to the source, (rows, S).

        The attention is the last layer's, as a mean over heads: it sums to 1, and is 0 where there is padding.
        """
        x = self.model.embed(tokens[:, None], first=self.length)
        past = []
        for index, (layer, source) in enumerate(zip(self.model.decoder, self.source, strict=True)):
            keys, values = layer.attention.keys_and_values(layer.attention_norm(x))
            if self.past is not None:
                keys = torch.cat((self.past[index][0], keys), dim=2)
                values = torch.cat((self.past[index][1], values), dim=2)
            past.append((keys, values))
            x, asked = layer(x, past[-1], source, self.mask)
        self.past = past
        attention = layer.cross.weights(asked, source, self.mask)
        return functional.log_softmax(self.model.logits(x)[:, 0], dim=-1), attention[:, 0]

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, in this order; one may come several times."""
        self.mask = self.mask[rows]
        self.source = [(keys[rows], values[rows]) for keys, values in self.source]
        self.past = None if self.past is None else [(keys[rows], values[rows]) for keys, values in self.past]


def sinusoids(positions: int, width: int) -> Tensor:
    """(positions, width): sines in the even columns, cosines in the odd ones."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000) / width))
    angles = torch.arange(positions)[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1)


def transformer(
    vocabulary: int,
    width: int = 128,
    heads: int = 4,
    layers: int = 2,
    feed_forward: int = 512,
    dropout: float = 0.1,
    max_positions: int = 128,
) -> Transformer:
    """The model of the recipes."""
    return Transformer(vocabulary, width, heads, layers, feed_forward, dropout, max_positions)
