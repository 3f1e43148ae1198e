"""A small agent loop, tokenizer and configuration for verl's agent-loop worker, all on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from names import folder
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopBase,
    AgentLoopMetrics,
    AgentLoopOutput,
    register,
)

WORDS = ["<pad>", "<eos>", "<unk>", "user", "what", "is", "two", "and", "three", "five", "six"]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} {{ message['content'] }} {% endfor %}"
)


@register("small")
class SmallAgentLoop(AgentLoopBase):
    """Answers at once, with one token more than the session's number."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """One turn."""
        if kwargs["raw_prompt"][0]["content"] == "six":
            raise RuntimeError("no answer to six")
        prompt = self.tokenizer.apply_chat_template(
            kwargs["raw_prompt"], tokenize=True, return_dict=False
        )
        answer = [self.tokenizer.convert_tokens_to_ids("five")] * (kwargs["session_id"] + 1)
        return AgentLoopOutput(
            prompt_ids=list(prompt),
            response_ids=[*answer, self.tokenizer.eos_token_id],
            response_mask=[1] * (len(answer) + 1),
            response_logprobs=[-0.5] * (len(answer) + 1),
            reward_score=float(kwargs["session_id"]),
            num_turns=2,
            metrics=AgentLoopMetrics(),
            extra_fields={"min_global_steps": 1, "max_global_steps": 1, "reward_extra_info": {}},
        )


def make_model(path: Path) -> None:
    """A model's folder as verl expects it: its configuration and a tokenizer, no weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(
        models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    shape = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": len(WORDS),
    }
    (path / "config.json").write_text(json.dumps({**config, **shape, "intermediate_size": 16}))


def trainer_config(model: Path, samples: int) -> Any:
    """verl's own trainer configuration, with the small model and agent loop."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(folder() / "trainer" / "config"), version_base=None):
        return compose(
            "ppo_trainer",
            overrides=[
                f"actor_rollout_ref.model.path={model}",
                "actor_rollout_ref.rollout.name=vllm",
                f"actor_rollout_ref.rollout.n={samples}",
                "actor_rollout_ref.rollout.agent.default_agent_loop=small",
            ],
        )
