"""The policy: a recurrent network that reads an image and writes an answer token by token."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from .tasks import MAX_TOKENS, PIXELS, START, THINK, VOCABULARY

HIDDEN = 64
MEAN, SPREAD = 0.305, 0.376
"""Mean and standard deviation of a pixel of the digits."""
INK_SPREAD = 0.034
"""Standard deviation of an image's mean."""


class Policy(nn.Module):
    """Gives the probability of each next token of an answer.

    A fresh policy gives every digit the same name, and thinks longer the more ink it sees: answers
    have a few tokens or close to a hundred.  Real rollouts have such a long tail too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Sequential(
            nn.Linear(PIXELS, 128), nn.ReLU(), nn.Linear(128, HIDDEN), nn.Tanh()
        )
        self.embed = nn.Embedding(VOCABULARY, 16)
        self.think = nn.GRU(16, HIDDEN, batch_first=True)
        self.write = nn.Linear(HIDDEN, START)  # any token but START
        with torch.no_grad():
            self.write.weight.mul_(0.3)
            self.write.bias.zero_()
            self.write.bias[THINK] = 4.2

    def _first(self, images: Tensor) -> Tensor:
        """Recurrent states before the first token."""
        state: Tensor = self.read((images - MEAN) / SPREAD)
        return state[None]

    def _logits(self, states: Tensor, ink: Tensor) -> Tensor:
        """Scores of the next tokens, from recurrent states and the ink of their images."""
        hesitation = torch.zeros(len(states), START)
        hesitation[:, THINK] = ink
        return self.write(states) + hesitation

    @staticmethod
    def _ink(images: Tensor) -> Tensor:
        """How much ink each image has, standardized."""
        return (images.mean(dim=1) - MEAN) / INK_SPREAD

    @torch.no_grad()
    def generate(self, images: Tensor, rng: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        """Writes one answer per image; returns the answers and the log-probability of each token."""
        count = len(images)
        tokens = torch.empty(count, MAX_TOKENS, dtype=torch.int64)
        logprobs = torch.empty(count, MAX_TOKENS)
        lengths = torch.full((count,), MAX_TOKENS)
        writing = torch.arange(count)
        state, ink = self._first(images), self._ink(images)
        token = torch.full((count,), START)
        for step in range(MAX_TOKENS):
            _, state = self.think(self.embed(token)[:, None], state)
            options = self._logits(state[0], ink).log_softmax(dim=1)
            token = torch.multinomial(options.exp(), 1, generator=rng)
            tokens[writing, step] = token[:, 0]
            logprobs[writing, step] = options.gather(1, token)[:, 0]
            going_on = token[:, 0] == THINK
            lengths[writing[~going_on]] = step + 1
            writing = writing[going_on]
            if not len(writing):
                break
            token, state, ink = token[going_on, 0], state[:, going_on], ink[going_on]
        cut = lengths.tolist()
        return (
            [row[:n].clone() for row, n in zip(tokens, cut, strict=True)],
            [row[:n].clone() for row, n in zip(logprobs, cut, strict=True)],
        )

    def logprobs(self, images: Tensor, answers: list[Tensor]) -> Tensor:
        """Log-probability of every token of the answers, end to end in one vector."""
        start = torch.tensor([START])
        read = pack_sequence(
            [torch.cat((start, answer[:-1])) for answer in answers], enforce_sorted=False
        )
        written = pack_sequence(answers, enforce_sorted=False)
        rows = pack_sequence(
            [torch.full_like(answer, row) for row, answer in enumerate(answers)],
            enforce_sorted=False,
        )
        embedded = read._replace(data=self.embed(read.data))
        states, _ = self.think(embedded, self._first(images))
        options = self._logits(states.data, self._ink(images)[rows.data]).log_softmax(dim=1)
        chosen = options.gather(1, written.data[:, None])[:, 0]
        padded, lengths = pad_packed_sequence(written._replace(data=chosen), batch_first=True)
        return padded[torch.arange(padded.shape[1]) < lengths[:, None]]

    def flat(self) -> Tensor:
        """All parameters as one vector, the form in which they are sent through the queue."""
        return parameters_to_vector(self.parameters()).detach()

    def load_flat(self, parameters: Tensor) -> None:
        """Loads parameters returned by `flat`."""
        vector_to_parameters(parameters, self.parameters())
