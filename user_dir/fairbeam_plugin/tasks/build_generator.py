"""The generator of fairseq's options: the engine, or stock's where an option or a model needs it."""

import dataclasses
from functools import cached_property
from typing import Any, Dict, List, Optional

import torch
from fairseq import checkpoint_utils

from fairbeam.data.lexical_shortlist import SHORTLIST, Shortlist
from fairbeam.engine import Engine, complete_options
from fairbeam.engine_model import EngineModel, check_draft_dictionaries, reranker_of, symbols_of
from fairbeam.errors import ConfigError, OptionName
from fairbeam.files import read_lines
from fairbeam.formats.fairseq import ModelFiles
from fairbeam.formats.registry import read_model
from fairbeam.generation import GenerationOptions, ModelSet
from fairbeam.generation.ensemble import LANGUAGE_MODEL_OPTION
from fairbeam.generation.options import parse_weights
from fairbeam.model import generator
from fairbeam.network import Generator, Precision
from fairbeam.reranking import Reranker
from fairbeam.text.phrases import phrase_ids
from fairbeam_plugin import networks
from fairbeam_plugin.generator import FairbeamGenerator, TaskTexts
from fairbeam_plugin.tasks.search_options import own_options
from fairbeam_plugin.tasks.texts import TaskTextSides


def generation_options(args: Any, own: Any) -> Dict[str, Any]:
    """Return fields of ``GenerationOptions`` from fairseq's options, which have the same names and defaults, and from
    the task's ``SearchOptions``."""
    given = {}
    for option in dataclasses.fields(GenerationOptions):
        for place in (own, args):
            value = getattr(place, option.name, None)
            if value is not None and value is not False:  # a number of 0 is given
                given[option.name] = value
    if isinstance(given.get("ensemble_weights"), str):
        given["ensemble_weights"] = parse_weights(given["ensemble_weights"])
    if getattr(args, "print_alignment", None) or getattr(args, "replace_unk", None) is not None:
        given["attention"] = True
    given["seed"] = torch.initial_seed() % (1 << 63)  # fairseq seeds torch with its --seed
    return given


def with_language_model(args: Any, extra: Dict[str, Any], data: str) -> Dict[str, Any]:
    """Return a generator's arguments with the model of ``--lm-path``, which ``fairseq-generate`` alone loads itself."""
    path = getattr(args, "lm_path", None)
    if path is None or extra.get("lm_model") is not None:
        return extra
    (model,), _ = checkpoint_utils.load_model_ensemble([path], arg_overrides={"data": data}, task=None)
    return {**extra, "lm_model": model, "lm_weight": getattr(args, "lm_weight", 0.0)}


class GeneratorBuilder:
    """Builds generators of a task; models beside the one that translates are read once."""

    def __init__(self, text: TaskTextSides) -> None:
        self.text, self.cfg = text, text.cfg

    def build(
        self, models: List[Any], args: Any, prefix_allowed_tokens_fn: Any, language_model: Any
    ) -> FairbeamGenerator:
        """Return our generator, which takes a copy of the models' weights as they are now.

        Raises:
            UnsupportedArchitecture: a model has no conversion.
            ConfigError: options are impossible, exclude each other, or need what is not there.
        """
        options = self._options(args, prefix_allowed_tokens_fn)
        engine = Engine(
            self._model(models, options, language_model),
            precision=Precision.parse(str(self.cfg.precision)),
            device=next(models[0].parameters()).device,
        )
        # Whether there are phrases is known when the first batch comes.
        engine.check(options, has_prefix=bool(getattr(args, "prefix_size", 0)), has_phrases=True)
        texts = TaskTexts(source=self.text.source_text, target=self.text.target_text)
        return FairbeamGenerator(engine, options, texts, alignment=getattr(args, "print_alignment", None) or None)

    def check_stock(self, reasons: List[str]) -> None:
        """Check that nothing is asked for that stock's generator, which is needed for these reasons, lacks.

        Raises:
            ConfigError: something is.
        """
        if reasons and self.text.bundle is not None:
            raise ConfigError(f"a pretrained model is decoded by our search alone, which lacks {'; '.join(reasons)}")
        if reasons and (own := own_options(self.cfg)):
            raise ConfigError("{}: our search alone has it, which lacks {}", own[0], "; ".join(reasons))

    def _options(self, args: Any, prefix_allowed_tokens_fn: Any) -> GenerationOptions:
        if getattr(args, "replace_unk", None) is not None and getattr(args, "print_alignment", None) == "soft":
            names = OptionName("replace_unk"), OptionName("print_alignment")
            raise ConfigError("{} and {} soft exclude each other; hard alignments can do both", *names)
        given = generation_options(args, self.cfg)
        if given.get("lm_weight") and getattr(args, "lm_path", None) is None:
            weight = OptionName("lm_weight"), given["lm_weight"]
            raise ConfigError("{} {}: there is no language model; {} names one", *weight, LANGUAGE_MODEL_OPTION)
        if prefix_allowed_tokens_fn is not None:
            given["prefix_allowed_tokens_fn"] = prefix_allowed_tokens_fn
        if self.cfg.allowed_outputs_file is not None:
            side = self.text.tokenizer(self.cfg.target_lang)
            given["allowed_outputs"] = phrase_ids(side, read_lines(self.cfg.allowed_outputs_file))
        has_phrases, drafts = self.cfg.constraints_file is not None, self.cfg.draft_model is not None
        given = complete_options(given, reranker=self._reranker, drafts=drafts, has_phrases=has_phrases)
        return GenerationOptions(**given)

    def _model(self, models: List[Any], options: GenerationOptions, language_model: Any) -> EngineModel:
        text = self.text
        fused = networks.language_model_of(language_model, text.target) if options.lm_weight else None
        return EngineModel(
            networks=ModelSet(
                [networks.network_of(model) for model in models],
                text.special,
                self._shortlist,
                fused,
                self._draft if options.draft_tokens else None,
            ),
            prefix=text.prefix,
            source_marks=frozenset(text.source_marks),
            shares_vocabulary=lambda: text.source == text.target,
            reranker=self._reranker,
        )

    @cached_property
    def _reranker(self) -> Reranker:
        """Models that rerank finished hypotheses; the channel model's languages are the model's, the other way."""
        channel, beside = self.cfg.channel_model, self.cfg.lm_model
        back = ModelFiles(source_lang=self.cfg.target_lang, target_lang=self.cfg.source_lang)
        return reranker_of(
            None if channel is None else read_model(channel, back),
            None if beside is None else read_model(beside),
            torch.device("cpu"),
        )

    @cached_property
    def _draft(self) -> Optional[Generator]:
        """Network of ``--draft-model``, which has our dictionaries."""
        text, cfg = self.text, self.cfg
        if cfg.draft_model is None:
            return None
        folder = None if text.bundle is not None else text.folder
        files = ModelFiles(data=folder, source_lang=cfg.source_lang, target_lang=cfg.target_lang)
        model = read_model(cfg.draft_model, files)
        if text.bundle is not None:
            ours = [symbols_of(text.side(language)) for language in (cfg.source_lang, cfg.target_lang)]
        else:
            ours = [networks.symbols_of(dictionary) for dictionary in (text.source, text.target)]
        check_draft_dictionaries([symbols_of(side) for side in (model.source, model.target) if side is not None], ours)
        return generator(model)

    @cached_property
    def _shortlist(self) -> Optional[Shortlist]:
        """Lexical shortlist of the pretrained model or of the data folder, if it is asked for and there."""
        text = self.text
        if text.bundle is not None:
            return text.bundle.shortlist
        if not self.cfg.shortlist or not (text.folder / SHORTLIST).is_file():
            return None
        found = Shortlist.load(text.folder / SHORTLIST)
        # Languages' symbols are in no list.
        return found.extended(len(text.source), len(text.target)) if text.symbols else found
