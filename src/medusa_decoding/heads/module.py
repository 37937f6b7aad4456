"""The heads themselves: residual blocks on the base model's hidden state and a projection to tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from medusa_decoding.errors import UserError
from medusa_decoding.heads.config import HeadsConfig


class ResidualBlocks(nn.Module):
    """One residual block of each of the K heads: `x + SiLU(W x + b)`, and `+ U e` inside when conditioned.

    The K weights are one parameter so that all heads run in one product. Everything starts at zero, so a new
    block changes nothing.
    """

    def __init__(self, num_heads: int, hidden_size: int, *, root: bool = False) -> None:
        """Make K blocks of (D, D); with `root` they also see the root token's embedding, through U."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_heads, hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(num_heads, hidden_size))
        self.root_weight = nn.Parameter(torch.zeros(num_heads, hidden_size, hidden_size)) if root else None

    def forward(self, inputs: Tensor, root_embedding: Tensor | None = None) -> Tensor:
        """Return (n, K, D) for inputs (n, D), the same for all heads, or (n, K, D)."""
        if inputs.dim() == 2:
            inner = self._apply_to_all(inputs, self.weight) + self.bias
            inputs = inputs.unsqueeze(1)
        else:
            inner = torch.baddbmm(
                self.bias.unsqueeze(1), inputs.transpose(0, 1), self.weight.transpose(1, 2)
            ).transpose(0, 1)
        if self.root_weight is not None:
            assert root_embedding is not None, "root-conditioned heads need the root's embedding"
            inner = inner + self._apply_to_all(root_embedding, self.root_weight)
        return inputs + functional.silu(inner)

    @staticmethod
    def _apply_to_all(inputs: Tensor, weight: Tensor) -> Tensor:
        """(n, D) and (K, D, D) to (n, K, D), as one product over (K·D, D)."""
        return functional.linear(inputs, weight.flatten(0, 1)).unflatten(1, weight.shape[:2])


class MedusaHeads(nn.Module):
    """K Medusa heads (Cai et al., section 2.1.1): head h, counted from 1, guesses the token at t+1+h.

    Shared projections and root embeddings are the base model's: call `bind` before `logits` or `embed`.
    `token_map`: (T,) draft id → target id, present when the heads have a draft vocabulary.
    """

    token_map: Tensor | None
    lm_head: Tensor | None
    lm_head_bias: Tensor | None
    embedding: Tensor | None
    _reference: Tensor

    def __init__(self, config: HeadsConfig, token_map: Tensor | None = None) -> None:
        """Make heads that change nothing; own projections are zero until `initialise_projection`.

        Raises UserError when `token_map` is not a list of T distinct ids of the base model's vocabulary.
        """
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(
            ResidualBlocks(
                config.num_heads, config.hidden_size, root=config.condition == "root" and layer == 0
            )
            for layer in range(config.num_layers)
        )
        self.projection: nn.Parameter | None = None
        if config.projection == "own":
            assert config.projection_rows is not None
            self.projection = nn.Parameter(
                torch.zeros(config.num_heads, config.projection_rows, config.hidden_size)
            )
        self.register_buffer("token_map", _checked_token_map(config, token_map))
        for name in ("lm_head", "lm_head_bias", "embedding"):
            self.register_buffer(name, None, persistent=False)
        self.register_buffer("_reference", torch.empty(0), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """The type the heads compute in."""
        return self._reference.dtype

    @property
    def device(self) -> torch.device:
        """The device the heads compute on."""
        return self._reference.device

    def features(self, hidden: Tensor, root_embedding: Tensor | None = None) -> Tensor:
        """Return (n, K, D): each head's view of `hidden` (n, D) and, if conditioned, `root_embedding` (n, D).

        `hidden` is the base model's output after its final norm; heads without condition ignore the root.
        """
        outputs = hidden
        for block in self.blocks:
            outputs = block(outputs, root_embedding)
        return outputs if self.blocks else outputs.unsqueeze(1).expand(-1, self.config.num_heads, -1)

    def logits(self, features: Tensor) -> Tensor:
        """Return (n, K, T) for `features` (n, K, D); T is the draft vocabulary's size, or V."""
        if self.projection is not None:
            return torch.bmm(features.transpose(0, 1), self.projection.transpose(1, 2)).transpose(0, 1)
        if self.lm_head is None:
            raise RuntimeError("These heads share the base model's lm_head: call bind() first.")
        return functional.linear(features, self.lm_head, self.lm_head_bias)

    def embed(self, tokens: Tensor) -> Tensor:
        """Return (n, D), the bound base model's input embeddings of `tokens` (n,), as the heads' type."""
        if self.embedding is None:
            raise RuntimeError("The base model's input embedding is not bound: call bind() first.")
        return functional.embedding(tokens.to(self.embedding.device), self.embedding).to(
            self.device, self.dtype
        )

    def bind(
        self,
        lm_head_weight: Tensor,
        embedding_weight: Tensor | None = None,
        lm_head_bias: Tensor | None = None,
    ) -> None:
        """Take what the heads need from the base model: lm_head (V, D), bias (V,), input embedding (V, D).

        The tensors are shared with the base model where type and device agree and no row is left out; they
        are neither trained nor saved. Raises UserError when the heads do not fit this base model.
        """
        self._check_fit("lm_head", lm_head_weight)
        self.config = self.config.model_copy(update={"vocabulary_size": lm_head_weight.shape[0]})
        if self.config.projection == "shared":
            self.lm_head = self._own_rows(lm_head_weight)
            self.lm_head_bias = None if lm_head_bias is None else self._own_rows(lm_head_bias)
        if self.config.condition == "root":
            if embedding_weight is None:
                raise UserError(
                    "These heads see the root token's embedding, and this base model offers none:"
                    " use heads without that condition."
                )
            self._check_fit("input embedding", embedding_weight, exact_rows=False)
            self.embedding = embedding_weight.detach()

    def initialise_projection(self, lm_head_weight: Tensor) -> None:
        """Start own projections from the base model's lm_head (V, D): each head first guesses as it does."""
        self._check_fit("lm_head", lm_head_weight)
        if self.projection is not None:
            with torch.no_grad():
                self.projection.copy_(self._own_rows(lm_head_weight))

    def _own_rows(self, tensor: Tensor) -> Tensor:
        """The rows of the heads' vocabulary, in the heads' type and place, without a copy if possible."""
        rows = tensor.detach()
        if self.token_map is not None:
            rows = rows.index_select(0, self.token_map.to(rows.device))
        return rows.to(self.device, self.dtype)

    def _check_fit(self, name: str, weight: Tensor, *, exact_rows: bool = True) -> None:
        rows, size = self.config.vocabulary_size, self.config.hidden_size
        shape = tuple(weight.shape)
        fits = len(shape) == 2 and shape[1] == size
        if fits and (rows is None or shape[0] == rows or (not exact_rows and shape[0] >= rows)):
            return
        base = f" ({self.config.base_model})" if self.config.base_model else ""
        raise UserError(
            f"The heads do not fit this base model: they were made for an {name} of shape"
            f" ({rows or 'any'}, {size}), and the model's is {shape}. Use the base model they were trained"
            f" for{base}, or train heads for this one with `medusa train`."
        )

    def save_pretrained(
        self, folder: str | Path, *, dtype: str = "float16", extra_files: Mapping[str, str] | None = None
    ) -> None:
        """See `medusa_decoding.heads.pretrained.save_pretrained`."""
        from medusa_decoding.heads.pretrained import save_pretrained

        save_pretrained(self, folder, dtype=dtype, extra_files=extra_files)

    @staticmethod
    def from_pretrained(
        location: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> MedusaHeads:
        """See `medusa_decoding.heads.pretrained.from_pretrained`."""
        from medusa_decoding.heads.pretrained import from_pretrained

        return from_pretrained(location, device=device, dtype=dtype)


def _checked_token_map(config: HeadsConfig, token_map: Tensor | None) -> Tensor | None:
    size = config.draft_vocabulary_size
    if size is None and token_map is None:
        return None
    assert config.vocabulary_size is not None or size is None
    if token_map is None or size is None or tuple(token_map.shape) != (size,):
        found = "none" if token_map is None else f"a token map of shape {tuple(token_map.shape)}"
        raise UserError(
            f"The heads' draft vocabulary is {size or 'the whole one'}, but there is {found}:"
            " save them again."
        )
    ids = token_map.to(torch.int64)
    if int(ids.min()) < 0 or int(ids.max()) >= (config.vocabulary_size or 0) or ids.unique().numel() != size:
        raise UserError(
            f"The heads' token map must hold {size} distinct ids below {config.vocabulary_size}:"
            " save them again."
        )
    return ids.clone()
